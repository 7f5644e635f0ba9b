//! A client that knows HTTP and nothing more: one connection, made again when it is lost. Effects: network.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A client of one server.
pub struct Client {
    to: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// How long an answer is waited for.
    pub patience: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nothing was sent.
    #[error("cannot connect: {0}")]
    Unsent(String),
    /// It was sent, perhaps in part, and nobody knows.
    #[error("no answer: {0}")]
    Lost(String),
}

impl Client {
    /// For a server; it connects when it is used.
    pub fn new(to: SocketAddr) -> Self {
        Self { to, sender: None, patience: Duration::from_secs(60) }
    }

    /// Sends a body, or none where it is empty, and waits for the whole answer.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let patience = self.patience;
        match timeout(patience, self.exchange(method, path, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.sender = None;
                Err(error)
            }
            Err(_) => {
                self.sender = None;
                Err(ClientError::Lost(format!("not within {patience:?}")))
            }
        }
    }

    /// A bulk.
    pub async fn bulk(&mut self, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), ClientError> {
        self.send(Method::POST, path, body).await
    }

    /// What is at a path, as text; panics where it is not 200.
    pub async fn get(&mut self, path: &str) -> String {
        let (status, body) = self.send(Method::GET, path, Bytes::new()).await.unwrap();
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        String::from_utf8(body.to_vec()).unwrap()
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let unsent = |error: &dyn std::fmt::Display| ClientError::Unsent(error.to_string());
        let lost = |error: hyper::Error| ClientError::Lost(error.to_string());
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(self.to).await.map_err(|error| unsent(&error))?;
                stream.set_nodelay(true).map_err(|error| unsent(&error))?;
                let hands = http1::handshake(TokioIo::new(stream)).await;
                let (sender, connection) = hands.map_err(|error| unsent(&error))?;
                tokio::spawn(connection);
                sender
            }
        };
        sender.ready().await.map_err(|error| unsent(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "router")
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(Full::new(body))
            .unwrap();
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(lost)?.to_bytes();
        self.sender = Some(sender);
        Ok((status, body))
    }
}
