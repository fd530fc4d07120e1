//! Middleware as two plain functions: one runs before the inner service, one after it.
//!
//! For every layer and request, axum's `from_fn` allocates the future, `Next`, and a copy of everything
//! inside. Six such layers took more than half of a post's instructions. This code allocates nothing.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use tower::{Layer, Service};

use crate::problem::Problem;

/// What runs before and after an inner service.
pub(crate) trait Around: Clone + Send + Sync + Unpin + 'static {
    /// What `after` needs to know about the request.
    type Kept: Send + Unpin;

    /// Looks at a request, and may answer it in place of the inner service.
    fn before(&self, request: &mut Request) -> (Self::Kept, Option<Response>);

    /// Completes the answer, wherever it came from.
    fn after(&self, kept: Self::Kept, response: Response) -> Response;
}

/// Puts the first around the second.
impl<A: Around, B: Around> Around for (A, B) {
    type Kept = (A::Kept, Option<B::Kept>);

    fn before(&self, request: &mut Request) -> (Self::Kept, Option<Response>) {
        let (outer, answer) = self.0.before(request);
        if answer.is_some() {
            return ((outer, None), answer);
        }
        let (inner, answer) = self.1.before(request);
        ((outer, Some(inner)), answer)
    }

    fn after(&self, (outer, inner): Self::Kept, response: Response) -> Response {
        let response = match inner {
            Some(inner) => self.1.after(inner, response),
            None => response,
        };
        self.0.after(outer, response)
    }
}

/// Puts an [`Around`] around services, for [`axum::Router::layer`].
#[derive(Clone)]
pub(crate) struct AroundLayer<A>(pub(crate) A);

impl<A: Around, S> Layer<S> for AroundLayer<A> {
    type Service = AroundService<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        AroundService {
            around: self.0.clone(),
            inner,
        }
    }
}

#[derive(Clone)]
pub(crate) struct AroundService<A, S> {
    around: A,
    inner: S,
}

impl<A, S> Service<Request> for AroundService<A, S>
where
    A: Around,
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = AroundFuture<A, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let (kept, answer) = self.around.before(&mut request);
        AroundFuture {
            around: self.around.clone(),
            kept: Some(kept),
            answer: match answer {
                Some(answer) => Answer::Given(Some(answer)),
                None => Answer::Awaited(self.inner.call(request)),
            },
        }
    }
}

pub(crate) struct AroundFuture<A: Around, F> {
    around: A,
    /// `None` once it is finished.
    kept: Option<A::Kept>,
    answer: Answer<F>,
}

enum Answer<F> {
    Awaited(F),
    Given(Option<Response>),
}

impl<A, F> Future for AroundFuture<A, F>
where
    A: Around,
    F: Future<Output = Result<Response, Infallible>> + Unpin,
{
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let response = match &mut this.answer {
            Answer::Given(answer) => answer.take().expect("polled after its end"),
            // After a panic, nothing that the handler left half done is used again, except state that it
            // shares with others behind locks.
            Answer::Awaited(inner) => {
                match catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll(cx))) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(Ok(response))) => response,
                    Ok(Poll::Ready(Err(never))) => match never {},
                    Err(panic) => {
                        let message = panic
                            .downcast_ref::<&str>()
                            .copied()
                            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                            .unwrap_or("no message");
                        let cause = format!("a request handler panicked: {message}");
                        Problem::internal().caused_by(cause).into_response()
                    }
                }
            }
        };
        let kept = this.kept.take().expect("polled after its end");
        Poll::Ready(Ok(this.around.after(kept, response)))
    }
}
