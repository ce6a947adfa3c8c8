//! The machine against a scripted server, and against a small model of one.

mod connecting;
mod free;
mod groups;
mod histories;
mod hostile;
mod marks;
mod model;
mod reading;
mod receiving;
mod rig;
mod sending;
mod taking_back;
