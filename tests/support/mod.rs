//! The harness: starts programs, talks to them, and plays the part of AWS when it misbehaves.
//!
//! Everything here blocks, so that a test reads from top to bottom, and panics with the program's own log when something
//! that a test takes for granted does not happen. It knows nothing of forebay's insides: only its command line, its
//! configuration file and its ports.

pub(crate) mod alone;
pub(crate) mod cable;
pub(crate) mod certificates;
pub(crate) mod configuration;
pub(crate) mod counterpart;
pub(crate) mod daemon;
pub(crate) mod device;
pub(crate) mod forebay;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod iot;
pub(crate) mod judge;
pub(crate) mod kinesalite;
pub(crate) mod kinesis;
pub(crate) mod kinesis_local;
pub(crate) mod kpl;
pub(crate) mod link;
pub(crate) mod modbus;
pub(crate) mod mosquitto;
pub(crate) mod moto;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod proxies;
pub(crate) mod publisher;
pub(crate) mod python;
pub(crate) mod receiver;
pub(crate) mod signature;
pub(crate) mod small_disk;
pub(crate) mod tls_front;
pub(crate) mod truck;
pub(crate) mod uart;
pub(crate) mod upstream;
pub(crate) mod wait;
pub(crate) mod weather;

pub(crate) use alone::alone;
pub(crate) use cable::Cable;
pub(crate) use configuration::{head, head_with_devices};
pub(crate) use device::Device;
pub(crate) use forebay::Forebay;
pub(crate) use gateway::Gateway;
pub(crate) use kinesalite::Kinesalite;
pub(crate) use kinesis::Kinesis;
pub(crate) use kinesis_local::KinesisLocal;
pub(crate) use modbus::ModbusServer;
pub(crate) use mosquitto::{Mosquitto, mosquitto_pub, mosquitto_pub_lines};
pub(crate) use moto::Moto;
pub(crate) use network::Network;
pub(crate) use port::free_port;
pub(crate) use python::python;
pub(crate) use small_disk::SmallDisk;
pub(crate) use upstream::{Reply, Upstream};
pub(crate) use wait::{eventually, eventually_some};
pub(crate) use weather::{Proxy, Weather};
