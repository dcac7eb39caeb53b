//! Requests that are answered once: interrupt, status, logs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipengine_protocol::Answer;

use crate::Error;
use crate::shared::{Shared, deadline};

/// A request that awaits its answer. Dropping it forgets the answer, not the request.
#[derive(Debug)]
pub struct Question<T> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: u64,
    pub(crate) read: fn(Answer, Vec<Bytes>) -> Option<T>,
}

impl<T> Question<T> {
    /// Waits for the answer; `None` when the time is over.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Closed`], [`Error::Forked`], [`Error::Lost`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<T>, Error> {
        let answer = self.shared.wait(deadline(timeout), true, |state| {
            match state.take_answer(self.number) {
                Some(answer) => Ok(Some(answer)),
                None => state.check_open().map(|()| None),
            }
        })?;
        let Some((answer, blobs)) = answer else {
            return Ok(None);
        };
        if let Answer::Refused { reason } = answer {
            return Err(Error::Refused(reason));
        }
        (self.read)(answer, blobs)
            .map(Some)
            .ok_or_else(|| Error::Refused("it answers something else".to_owned()))
    }
}

impl<T> Drop for Question<T> {
    fn drop(&mut self) {
        if self.shared.check_owner().is_ok() {
            self.shared.lock().unask(self.number);
        }
    }
}
