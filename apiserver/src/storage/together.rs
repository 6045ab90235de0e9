//! One answer for all who ask at the same time.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// How many turns others have before a question begins, at most.
const TURNS: usize = 32;

/// A question that is put again and again, whose answer must not be older than the asking.
///
/// One is under way at a time. Whoever asks meanwhile waits for the next one, which answers all of them, and begins when
/// nobody else is about to ask.
#[derive(Debug)]
pub(super) struct Together<A> {
    /// How many have asked.
    asked: AtomicU64,
    /// How many questions have begun.
    begun: AtomicU64,
    /// The number of the last one that was answered, and the answer.
    last: Mutex<Option<(u64, A)>>,
}

impl<A: Clone> Together<A> {
    /// Nothing has been asked yet.
    pub(super) fn new() -> Self {
        Self { asked: AtomicU64::new(0), begun: AtomicU64::new(0), last: Mutex::new(None) }
    }

    /// The answer to a question that begins after this call.
    pub(super) async fn ask<Q: Future<Output = A>>(&self, question: impl FnOnce() -> Q) -> A {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if let Some((number, answer)) = &*last
            && *number > before
        {
            return answer.clone();
        }
        self.settle().await;
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = question().await;
        *last = Some((number, answer.clone()));
        answer
    }

    /// Lets those go first who are about to ask, for as long as there are some.
    async fn settle(&self) {
        let mut asked = self.asked.load(Ordering::Relaxed);
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            let now = self.asked.load(Ordering::Relaxed);
            if now == asked {
                break;
            }
            asked = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::task::Poll;

    use futures::poll;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_asks_meanwhile_shares_the_next_answer() {
        let (together, put) = (Together::new(), Cell::new(0));
        let question = |answer: oneshot::Receiver<u32>| {
            let put = &put;
            move || async move {
                put.set(put.get() + 1);
                answer.await.unwrap()
            }
        };
        // Until the question has been put.
        async fn settled<F: Future + Unpin>(asking: &mut F) {
            for _ in 0..3 {
                assert!(poll!(&mut *asking).is_pending());
                tokio::task::yield_now().await;
            }
        }
        let ((first, a), (second, b), (_third, c)) =
            (oneshot::channel(), oneshot::channel(), oneshot::channel());
        let mut one = std::pin::pin!(together.ask(question(a)));
        settled(&mut one).await;
        let mut two = std::pin::pin!(together.ask(question(b)));
        let mut three = std::pin::pin!(together.ask(question(c)));
        assert!(poll!(&mut two).is_pending() && poll!(&mut three).is_pending());
        first.send(1).unwrap();
        assert_eq!(poll!(&mut one), Poll::Ready(1));
        // The answer to a question that began before they asked is none for them.
        settled(&mut two).await;
        assert!(poll!(&mut three).is_pending());
        second.send(2).unwrap();
        assert_eq!(poll!(&mut two), Poll::Ready(2));
        assert_eq!(poll!(&mut three), Poll::Ready(2));
        assert_eq!(put.get(), 2);
    }

    #[tokio::test]
    async fn a_question_that_is_given_up_answers_nobody() {
        let together = Together::new();
        let mut one = Box::pin(together.ask(std::future::pending));
        assert!(poll!(&mut one).is_pending());
        let mut two = std::pin::pin!(together.ask(async || 2));
        assert!(poll!(&mut two).is_pending());
        drop(one);
        assert_eq!(two.await, 2);
    }
}
