//! Connecting within its time, whatever of it takes long: the name, the connection or TLS.

use std::{
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use http::Uri;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tokio::{sync::Semaphore, time::timeout};
use tower::Service;

type BoxError = Box<dyn Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// A lookup holds a thread of those that the disk needs too, and cannot be stopped: a slow resolver may have so many.
const LOOKUPS: usize = 8;

#[derive(Clone)]
pub(super) struct InTime<C> {
    connector: C,
    within: Duration,
}

impl<C> InTime<C> {
    pub(super) const fn new(connector: C, within: Duration) -> Self {
        Self { connector, within }
    }
}

impl<C: Service<Uri, Error = BoxError, Future: Send + 'static>> Service<Uri> for InTime<C> {
    type Response = C::Response;
    type Error = BoxError;
    type Future = Connecting<C::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = timeout(self.within, self.connector.call(uri));
        Box::pin(async {
            connecting.await.unwrap_or_else(|_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}

#[derive(Clone)]
pub(super) struct FewLookups<R = GaiResolver> {
    resolver: R,
    places: Arc<Semaphore>,
}

impl FewLookups {
    pub(super) fn new() -> Self {
        Self::with(GaiResolver::new())
    }
}

impl<R> FewLookups<R> {
    fn with(resolver: R) -> Self {
        Self { resolver, places: Arc::new(Semaphore::new(LOOKUPS)) }
    }
}

impl<R> Service<Name> for FewLookups<R>
where
    R: Service<Name, Future: Send + 'static> + Clone + Send + 'static,
    R::Response: Iterator<Item = SocketAddr> + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (mut resolver, places) = (self.resolver.clone(), Arc::clone(&self.places));
        Box::pin(async move {
            let place = places.acquire_owned().await?;
            // In a task, so that a lookup that nobody waits for any more still has its place.
            let lookup = tokio::spawn(async move {
                let addresses = resolver.call(name).await.map_err(Into::into)?;
                drop(place);
                Ok::<_, BoxError>(addresses.collect::<Vec<_>>())
            });
            Ok(lookup.await??.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// Counts lookups and never finds anything.
    #[derive(Clone, Default)]
    struct Stuck(Arc<AtomicUsize>);

    impl Service<Name> for Stuck {
        type Response = vec::IntoIter<SocketAddr>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Name) -> Self::Future {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::future::pending()
        }
    }

    #[tokio::test]
    async fn a_slow_resolver_is_asked_only_so_often_also_by_those_who_gave_up() {
        let stuck = Stuck::default();
        let lookups = FewLookups::with(stuck.clone());
        let waiting = (0..100).map(|_| {
            let mut lookups = lookups.clone();
            let name = "upstream.example".parse().unwrap();
            tokio::spawn(async move { timeout(Duration::from_millis(50), lookups.call(name)).await.is_err() })
        });
        for gave_up in waiting.collect::<Vec<_>>() {
            assert!(gave_up.await.unwrap());
        }
        assert_eq!(stuck.0.load(Ordering::SeqCst), LOOKUPS);
    }
}
