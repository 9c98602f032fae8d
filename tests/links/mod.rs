//! Links with limits, and interfaces that go and come: what really passes, and what status says of it.

mod counting_relay;
mod interfaces;
mod limits;
