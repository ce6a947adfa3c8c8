//! The machine against a scripted server, and against a small model of one.

mod connecting;
mod model;
mod receiving;
mod rig;
mod sending;
