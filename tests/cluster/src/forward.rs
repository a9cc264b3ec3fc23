//! Forwarding from the host's network into the namespace.
//!
//! A socket in the file system is reachable from every network namespace. So inside, a task listens
//! on such a socket for each server; outside, another listens on a loopback port and passes on.

use crate::error::{Error, Result};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

/// Inside: passes on what comes through `socket` to `server`, for as long as the runtime lives.
pub(crate) fn out_of(socket: &Path, server: SocketAddr) -> Result<()> {
    let listener = UnixListener::bind(socket).map_err(Error::file("listen on", socket))?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(server).await {
                    // An end of either side ends the connection; that is all there is to do.
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    Ok(())
}

/// Outside: passes on what comes to the returned address through `socket`.
pub(crate) async fn into(socket: PathBuf) -> Result<SocketAddr> {
    let listening = async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok((listener.local_addr()?, listener))
    };
    let (address, listener) = listening
        .await
        .map_err(Error::file("forward to", &socket))?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let socket = socket.clone();
            tokio::spawn(async move {
                if let Ok(mut server) = UnixStream::connect(socket).await {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    Ok(address)
}
