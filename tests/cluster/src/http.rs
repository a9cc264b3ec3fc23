//! Plain HTTP requests, with one connection each, so that the current listener responds.

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use std::{io, time::Duration};
use tokio::net::{TcpStream, ToSocketAddrs};

/// Gets `path` from the server at `address`, all within `timeout`.
pub(crate) async fn get(
    address: impl ToSocketAddrs,
    host: &str,
    path: &str,
    timeout: Duration,
) -> io::Result<Response<Bytes>> {
    get_with(address, host, path, &[], timeout).await
}

/// The same with headers.
pub(crate) async fn get_with(
    address: impl ToSocketAddrs,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    timeout: Duration,
) -> io::Result<Response<Bytes>> {
    tokio::time::timeout(timeout, async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let request = Request::get(path).header(HOST, host);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        // The connection only moves while it is polled; the exchange ends first.
        tokio::select! {
            biased;
            response = exchange => response.map_err(|error: hyper::Error| io::Error::other(error)),
            ended = connection => Err(ended.err().map_or(
                io::ErrorKind::ConnectionReset.into(),
                io::Error::other,
            )),
        }
    })
    .await
    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
