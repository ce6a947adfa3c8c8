//! One device of the demo, as the demo sees it: its process, its link, and the messages that it
//! is given.

use std::io;
use std::path::PathBuf;

use tern_badlink::Relay;

use super::children::{Name, Nursery, Process};
use super::ledger::{DeviceNo, Mark};
use super::words::Order;

/// A device through all its lives.
pub struct Device {
    no: DeviceNo,
    name: &'static str,
    profile: PathBuf,
    uin: u64,
    to: u64,
    /// The link to the server.
    pub relay: Relay,
    process: Option<Process>,
    lives: u32,
    /// The newest life that has ended.
    ended: u32,
    /// The process has said that it is up.
    is_up: bool,
    sent: u64,
    /// Messages to be sent when it is up.
    waiting: u32,
}

impl Device {
    /// A device that never lived yet: its profile and uin, whom it writes to, and its link.
    pub fn new(
        no: DeviceNo,
        name: &'static str,
        (profile, uin): (PathBuf, u64),
        to: u64,
        relay: Relay,
    ) -> Self {
        Self {
            no,
            name,
            profile,
            uin,
            to,
            relay,
            process: None,
            lives: 0,
            ended: 0,
            is_up: false,
            sent: 0,
            waiting: 0,
        }
    }

    /// The user's number.
    pub fn uin(&self) -> u64 {
        self.uin
    }

    /// It is up, and was given everything that it is to send.
    pub fn is_ready(&self) -> bool {
        self.is_up && self.waiting == 0
    }

    /// Its process is gone, and everything that it wrote was read.
    pub fn has_ended(&self) -> bool {
        self.ended == self.lives
    }

    /// Starts its process.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(&mut self, nursery: &Nursery, role: usize) -> io::Result<()> {
        self.lives += 1;
        let (server, to) = (self.relay.address().to_string(), self.to.to_string());
        let words = ["demo-device", "--server", &server, "--to", &to, "--profile"];
        let arguments = words.map(AsRef::as_ref).into_iter().chain([self.profile.as_os_str()]);
        let who = Name { role, life: self.lives };
        self.process = Some(nursery.start(who, self.name, arguments)?);
        Ok(())
    }

    /// `kill -9` of its process, if it has one.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.is_up = false;
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// A life has ended; whether it was killed.
    pub fn ended(&mut self, life: u32) -> bool {
        self.ended = life;
        self.process.as_ref().is_none_or(|process| process.life() != life)
    }

    /// It is up: gets these messages once more. Returns how many others wait to be sent.
    pub async fn came_up(&mut self, again: impl Iterator<Item = Mark>) -> u32 {
        self.is_up = true;
        for mark in again {
            self.order_send(mark).await;
        }
        std::mem::take(&mut self.waiting)
    }

    /// Gives it its next message; `None` if it is not up, and then later.
    pub async fn send_next(&mut self) -> Option<Mark> {
        if !self.is_up {
            self.waiting += 1;
            return None;
        }
        self.sent += 1;
        let mark = Mark { by: self.no, number: self.sent };
        self.order_send(mark).await;
        Some(mark)
    }

    /// Has it go on from another address.
    pub async fn change_address(&mut self) {
        self.order(&Order::ChangeAddress).await;
    }

    /// The message of this device that a text is.
    pub fn mark_of(&self, text: &str) -> Option<Mark> {
        let number = text.strip_prefix("message ")?.strip_suffix(&format!(" of {}", self.name))?;
        Some(Mark { by: self.no, number: number.parse().ok()? })
    }

    async fn order_send(&mut self, mark: Mark) {
        let text = format!("message {} of {}", mark.number, self.name);
        self.order(&Order::Send { number: mark.number, text }).await;
    }

    async fn order(&mut self, order: &Order) {
        let line = serde_json::to_string(order).expect("an order is always JSON");
        if let Some(process) = &mut self.process {
            // That it is gone comes as the end of its life.
            let _ = process.say(&line).await;
        }
    }
}
