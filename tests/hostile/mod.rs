//! Hostile upstreams: every condition of a link and of an endpoint that the field knows, one test for each.
//!
//! All are tried in the same way (`trial.rs`): devices publish to the real binary before, during and after it, and a judge
//! compares their books with what the endpoint has at the end. In each, nothing is lost, each key keeps its order, devices are
//! never held up, what can pass passes, status names the trouble, and when it is over a fresh record passes without more
//! failures than there were requests under way. All of that holds in strict order for records that are sent alone as well as
//! for aggregates (`aggregation = "kpl"`, in CBOR where it is known), of which the judge sees what the Kinesis Client Library would.
//! `endpoint.rs` has conditions of the endpoint, with one that does as it is told, both ways; `shards.rs` has those that only
//! aggregates meet; `link.rs` has those of the link, with a real server behind it, in a network namespace of the gateway's
//! own, for aggregates only those that care about bytes; `isolation.rs` has all at once beside healthy ones; `fault.rs` has one
//! record at which the endpoint breaks.

mod endpoint;
mod fault;
mod isolation;
mod link;
mod shards;
mod trial;
