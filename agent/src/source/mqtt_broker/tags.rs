//! What a version 5 client says about its message, as tags. Pure.

use forebay_log_store::Tag;
use rmqtt_codec::v5::{LastWill, PublishProperties};

use crate::source::mqtt_tags::{CONTENT_TYPE, RESPONSE_TOPIC, correlation, tag, user_property};

/// Puts the tags of a message into `tags`, in place of what was there.
pub(super) fn of_publish(properties: Option<&PublishProperties>, tags: &mut Vec<Tag>) {
    tags.clear();
    let Some(properties) = properties else { return };
    let said = [(CONTENT_TYPE, &properties.content_type), (RESPONSE_TOPIC, &properties.response_topic)];
    tags.extend(said.into_iter().filter_map(|(name, value)| Some(tag(name, &**value.as_ref()?))));
    tags.extend(properties.correlation_data.as_deref().map(correlation));
    tags.extend(properties.user_properties.iter().map(|(name, value)| user_property(name, &**value)));
}

/// The tags of a will.
pub(super) fn of_will(will: &LastWill) -> Vec<Tag> {
    let mut tags = Vec::new();
    let properties = PublishProperties {
        correlation_data: will.correlation_data.clone(),
        content_type: will.content_type.clone(),
        user_properties: will.user_properties.clone(),
        response_topic: will.response_topic.clone(),
        ..PublishProperties::default()
    };
    of_publish(Some(&properties), &mut tags);
    tags
}
