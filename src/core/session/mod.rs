//! Sessions: the devices that are connected to a worker.
