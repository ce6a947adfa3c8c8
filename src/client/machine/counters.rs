//! What the machine drops or repeats, counted, so that nothing goes in silence.

/// Counts since the machine was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Connections that were logged in.
    pub logins: u64,
    /// Of these, sessions that went on.
    pub resumes: u64,
    /// Pushes of messages that the application had already been given; dropped.
    pub repeated_pushes: u64,
    /// Holes that were asked for by FETCH.
    pub fetches: u64,
    /// Messages dropped behind a hole because too many were held; fetched later.
    pub held_dropped: u64,
    /// SEND frames beyond the first of their key on any connection.
    pub resends: u64,
    /// Sends that left by datagram and, unanswered, once more in order.
    pub repairs: u64,
    /// Answers to sends that were already answered; dropped.
    pub repeated_answers: u64,
    /// Lists of cursors that the server asked for because the digests differed.
    pub cursors_asked: u64,
    /// Quiet heartbeats that were lost, or came from behind another address translation.
    pub intervals_lost: u64,
    /// Frames of a kind that this version does not know, stepped over.
    pub unknown_frames: u64,
    /// Connections given up because a frame was not what the protocol allows.
    pub bad_frames: u64,
    /// Confirmations by the application of what it was not given; ignored.
    pub stray_confirmations: u64,
}
