//! A small HTTP client: what goes over the wire is in the test.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Got {
    pub status: u16,
    pub head: String,
    pub text: String,
    pub body: Value,
}

pub async fn send(to: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Got {
    exchange(TcpStream::connect(to).await.unwrap(), method, path, headers, body).await
}

pub async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Got {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: router\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    let text = String::from_utf8(read).unwrap();
    let (head, rest) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let text = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunk(rest)
    } else {
        rest.to_owned()
    };
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Got { status, head: head.to_lowercase(), text, body }
}

fn unchunk(mut rest: &str) -> String {
    let mut text = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        text.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    text
}

pub async fn json(to: SocketAddr, method: &str, path: &str, body: &str) -> Got {
    send(to, method, path, "content-type: application/json\r\n", body.as_bytes()).await
}
