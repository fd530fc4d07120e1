use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::Refusal;

/// Whether a caller may do something. A future; if the answer is already known, it is ready at once
/// and allocates nothing.
#[must_use = "nothing is permitted until this has been awaited"]
pub struct Decision<'a>(Inner<'a>);

enum Inner<'a> {
    Known(Option<Result<(), Refusal>>),
    Asked(Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>>),
}

impl<'a> Decision<'a> {
    /// An answer that is already known.
    pub fn known(answer: Result<(), Refusal>) -> Self {
        Self(Inner::Known(Some(answer)))
    }

    /// An answer that has to be looked up.
    pub fn asked(answer: impl Future<Output = Result<(), Refusal>> + Send + 'a) -> Self {
        Self(Inner::Asked(Box::pin(answer)))
    }
}

impl Future for Decision<'_> {
    type Output = Result<(), Refusal>;

    /// # Panics
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::Known(answer) => Poll::Ready(answer.take().expect("polled once")),
            Inner::Asked(answer) => answer.as_mut().poll(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_kinds_answer() {
        let no = || {
            Err(Refusal::Unavailable {
                reason: "a reason".to_owned(),
            })
        };
        assert_eq!(Decision::known(no()).await, no());
        let asked = Decision::asked(async {
            tokio::task::yield_now().await;
            no()
        });
        assert_eq!(asked.await, no());
    }
}
