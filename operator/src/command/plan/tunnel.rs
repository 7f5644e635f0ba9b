//! Ways to Elasticsearch from outside of the Kubernetes network: ports of pods that the API server forwards, behind
//! listeners on the loopback interface. To clusters with TLS leads one proxy that tunnels (CONNECT), so that the client
//! verifies names and authorities end to end as the operator does; each of the others has a listener of its own. Effects:
//! network, until dropped.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use searchcell_core::names::{ClusterKey, HTTP_PORT};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Of Elasticsearch in its pod.
const PORT: u16 = HTTP_PORT as u16;
/// Longest head of a request to the proxy.
const LONGEST_HEAD: usize = 8 << 10;

/// Open ways; closed when dropped.
pub struct Tunnels {
    proxy: SocketAddr,
    plain: BTreeMap<ClusterKey, SocketAddr>,
    routes: Arc<Routes>,
    _tasks: JoinSet<()>,
}

/// Where clusters are.
struct Routes {
    client: Client,
    /// Ready pods by cluster.
    pods: BTreeMap<ClusterKey, Vec<String>>,
    /// Why the last port was not forwarded, by cluster.
    problems: Mutex<BTreeMap<ClusterKey, String>>,
}

impl Tunnels {
    /// Opens ways to these clusters, each through any of these pods.
    pub async fn open(client: Client, pods: BTreeMap<ClusterKey, Vec<String>>) -> std::io::Result<Self> {
        let routes = Arc::new(Routes { client, pods, problems: Mutex::default() });
        let mut tasks = JoinSet::new();
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listen().await?;
        let proxy = listener.local_addr()?;
        tasks.spawn(accept(listener, Arc::clone(&routes), None));
        let mut plain = BTreeMap::new();
        for cluster in routes.pods.keys() {
            let listener = listen().await?;
            plain.insert(cluster.clone(), listener.local_addr()?);
            tasks.spawn(accept(listener, Arc::clone(&routes), Some(cluster.clone())));
        }
        Ok(Self { proxy, plain, routes, _tasks: tasks })
    }

    /// Address of the proxy.
    pub fn proxy(&self) -> String {
        format!("http://{}/", self.proxy)
    }

    /// Where a cluster without TLS is.
    pub fn plain(&self) -> BTreeMap<ClusterKey, SocketAddr> {
        self.plain.clone()
    }

    /// Why ports of a cluster are not forwarded, if that is so.
    pub fn problem(&self, cluster: &ClusterKey) -> Option<String> {
        self.routes.problems.lock().unwrap_or_else(PoisonError::into_inner).get(cluster).cloned()
    }
}

async fn accept(listener: TcpListener, routes: Arc<Routes>, cluster: Option<ClusterKey>) {
    // They end with the listener.
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let (routes, cluster) = (Arc::clone(&routes), cluster.clone());
        connections.spawn(async move {
            let result = match cluster {
                Some(cluster) => routes.forward(connection, &cluster).await,
                None => routes.tunnel(connection).await,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a forwarded connection ended");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Routes {
    async fn forward(&self, mut from: TcpStream, cluster: &ClusterKey) -> std::io::Result<()> {
        if let Some(mut to) = self.connect(cluster).await {
            copy_bidirectional(&mut from, &mut to).await?;
        }
        Ok(())
    }

    async fn tunnel(&self, mut from: TcpStream) -> std::io::Result<()> {
        let head = head(&mut from).await?;
        let cluster = self.pods.keys().find(|cluster| target(&head) == Some(authority(cluster).as_str()));
        let to = match cluster {
            Some(cluster) => self.connect(cluster).await,
            None => None,
        };
        let Some(mut to) = to else {
            return from.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
        };
        from.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        copy_bidirectional(&mut from, &mut to).await?;
        Ok(())
    }

    /// A connection to the first pod that takes it.
    async fn connect(&self, cluster: &ClusterKey) -> Option<DuplexStream> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &cluster.namespace);
        for name in self.pods.get(cluster).into_iter().flatten() {
            let why = match pods.portforward(name, &[PORT]).await {
                Ok(mut forwarded) => match forwarded.take_stream(PORT) {
                    Some(stream) => return Some(stream),
                    None => "no stream".to_owned(),
                },
                Err(error) => error.to_string(),
            };
            let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
            problems
                .insert(cluster.clone(), format!("port {HTTP_PORT} of pod {name} is not forwarded: {why}"));
        }
        None
    }
}

/// Host and port that clients ask a proxy for.
fn authority(cluster: &ClusterKey) -> String {
    cluster.endpoint("").trim_start_matches("://").to_owned()
}

/// What a request to the proxy asks for.
fn target(head: &str) -> Option<&str> {
    let mut words = head.lines().next()?.split(' ');
    (words.next() == Some("CONNECT")).then(|| words.next()).flatten()
}

async fn head(from: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    // The client says nothing more before it has an answer.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= LONGEST_HEAD || from.read_buf(&mut head).await? == 0 {
            return Err(std::io::Error::other("no request"));
        }
    }
    String::from_utf8(head).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Client {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            let body = kube::client::Body::from(b"{}".to_vec());
            Ok::<_, std::convert::Infallible>(http::Response::builder().status(403).body(body).unwrap())
        });
        Client::new(service, "default")
    }

    #[test]
    fn the_proxy_is_asked_for_the_name_of_the_service() {
        let cluster = ClusterKey::new("search", "guilds", "a");
        let head = "CONNECT guilds-a.search.svc:9200 HTTP/1.1\r\nHost: guilds-a.search.svc:9200\r\n\r\n";
        assert_eq!(target(head), Some(authority(&cluster).as_str()));
        assert_eq!(target("GET http://guilds-a.search.svc:9200/ HTTP/1.1\r\n\r\n"), None);
    }

    #[tokio::test]
    async fn what_is_not_forwarded_is_told_and_other_targets_are_not_there() {
        let cluster = ClusterKey::new("search", "guilds", "a");
        let pods = BTreeMap::from([(cluster.clone(), vec!["guilds-a-ingest-0".to_owned()])]);
        let tunnels = Tunnels::open(nobody(), pods).await.unwrap();
        for (target, is_known) in [("guilds-b.search.svc:9200", false), ("guilds-a.search.svc:9200", true)] {
            let mut stream = TcpStream::connect(tunnels.proxy).await.unwrap();
            stream.write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 502"), "{target}: {answer}");
            assert_eq!(tunnels.problem(&cluster).is_some(), is_known, "{target}");
        }
        assert!(tunnels.problem(&cluster).unwrap().contains("pod guilds-a-ingest-0"));
    }
}
