//! A client of the API server that cannot change anything: what is no reading and no dry run does not leave this process.
//! No effects of its own.

use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Uri};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};

use crate::kube_io::client::tuned;

/// Readings of these do something inside of a pod, or of a service.
const ACTING: [&str; 3] = ["exec", "attach", "proxy"];

/// A client behind the guard.
pub fn read_only(config: Config) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(tuned(config))?.with_layer(&ReadOnly).build())
}

/// Puts a service behind the guard.
#[derive(Clone, Copy, Debug)]
pub struct ReadOnly;

impl<S> Layer<S> for ReadOnly {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner }
    }
}

/// A service behind the guard.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
}

/// A request that would change something.
#[derive(Debug, thiserror::Error)]
#[error("{0} {1} would change something, and a plan changes nothing")]
pub struct Forbidden(Method, String);

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Future: Send + 'static, Error: Into<BoxError>>,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if changes_nothing(request.method(), request.uri()) {
            return self.inner.call(request).map(|result| result.map_err(Into::into)).boxed();
        }
        let error = Forbidden(request.method().clone(), request.uri().path().to_owned());
        async move { Err(error.into()) }.boxed()
    }
}

fn changes_nothing(method: &Method, uri: &Uri) -> bool {
    // /api/v1/nodes/<name>/<here>, and /api/v1/namespaces/<name>/pods/<name>/<here>.
    let subresource = [5, 7].into_iter().filter_map(|place| uri.path().split('/').nth(place));
    let reads = [Method::GET, Method::HEAD].contains(method)
        && !subresource.into_iter().any(|part| ACTING.contains(&part));
    let writes = [Method::POST, Method::PUT].contains(method);
    let is_dry = uri.query().into_iter().flat_map(|query| query.split('&')).any(|pair| pair == "dryRun=All");
    reads || writes && is_dry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readings_and_dry_runs_pass() {
        let cell = "/apis/searchcell.dev/v1alpha1/namespaces/search/searchcells/guilds";
        let allowed = |method: Method, uri: &str| changes_nothing(&method, &uri.parse().unwrap());
        assert!(allowed(Method::GET, cell));
        assert!(allowed(Method::GET, "/api/v1/namespaces/search/pods/p/portforward?ports=9200"));
        for method in [Method::POST, Method::PUT] {
            assert!(allowed(method.clone(), &format!("{cell}?fieldManager=me&dryRun=All")), "{method}");
            assert!(!allowed(method.clone(), cell), "{method}");
            assert!(!allowed(method, &format!("{cell}?xdryRun=All")));
        }
        for method in [Method::PATCH, Method::DELETE] {
            assert!(!allowed(method.clone(), &format!("{cell}?dryRun=All")), "{method}");
        }
        assert!(!allowed(Method::GET, "/api/v1/namespaces/search/pods/p/exec?command=rm"));
        assert!(!allowed(Method::GET, "/api/v1/nodes/n/proxy/run"));
        assert!(allowed(Method::GET, "/api/v1/namespaces/exec/secrets/exec"));
    }

    #[tokio::test]
    async fn what_would_change_something_does_not_get_through() {
        let service = tower::service_fn(|_: Request<()>| async { Ok::<_, BoxError>("through") });
        let mut guarded = ReadOnly.layer(service);
        let request = |method: &str| Request::builder().method(method).uri("/x").body(()).unwrap();
        assert_eq!(guarded.call(request("GET")).await.unwrap(), "through");
        let error = guarded.call(request("DELETE")).await.unwrap_err().to_string();
        assert!(error.contains("a plan changes nothing"), "{error}");
    }
}
