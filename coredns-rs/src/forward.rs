//! The forward plug-in: asks other servers, by UDP and, when the answer is cut off, by TCP.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use hickory_server::proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// Time for one server to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The servers of a `forward` directive.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Names below this are forwarded.
    pub(crate) from: String,
    pub(crate) except: Vec<String>,
    servers: Vec<SocketAddr>,
    force_tcp: bool,
    next: AtomicUsize,
}

/// The servers that a word of the directive stands for: an address, or a file in the form of resolv.conf.
fn servers(word: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let word = word.strip_prefix("dns://").unwrap_or(word);
    if let Ok(address) = word.parse() {
        return Ok(vec![address]);
    }
    if let Ok(ip) = word.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, 53)]);
    }
    if word.contains("://") {
        bail!("forward: {word:?} is not supported");
    }
    let text =
        fs::read_to_string(word).with_context(|| format!("forward: {word:?} is neither address nor file"))?;
    Ok(resolv_conf(&text))
}

fn resolv_conf(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|l| l.trim().strip_prefix("nameserver"));
    lines.filter_map(|l| l.trim().parse().ok()).map(|ip| SocketAddr::new(ip, 53)).collect()
}

impl Forward {
    pub(crate) fn new(
        from: String,
        to: &[String],
        except: Vec<String>,
        force_tcp: bool,
    ) -> anyhow::Result<Self> {
        let lists = to.iter().map(|w| servers(w)).collect::<anyhow::Result<Vec<_>>>()?;
        let servers: Vec<SocketAddr> = lists.into_iter().flatten().collect();
        if servers.is_empty() {
            bail!("forward: no server in {}", to.join(" "));
        }
        Ok(Self { from, except, servers, force_tcp, next: AtomicUsize::new(rand::random_range(0..1000)) })
    }

    /// Asks one server after the other until one answers.
    pub(crate) async fn ask(&self, query: &Message) -> io::Result<Message> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut last = io::Error::other("no server");
        for i in 0..self.servers.len() {
            let server = self.servers[(start + i) % self.servers.len()];
            match tokio::time::timeout(PATIENCE, self.exchange(server, query)).await {
                Ok(Ok(message)) => return Ok(message),
                Ok(Err(e)) => last = e,
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{server} does not answer")),
            }
        }
        Err(last)
    }

    async fn exchange(&self, server: SocketAddr, query: &Message) -> io::Result<Message> {
        let mut query = query.clone();
        query.metadata.id = rand::random();
        let bytes = query.to_vec().map_err(io::Error::other)?;
        if !self.force_tcp {
            let message = over_udp(server, &query, &bytes).await?;
            if !message.metadata.truncation {
                return Ok(message);
            }
        }
        over_tcp(server, &bytes).await
    }
}

/// One question from a port of its own, so that an answer cannot be guessed.
async fn over_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 65535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else is a late answer to another question, or forged.
        if let Ok(message) = Message::from_vec(&buffer[..length])
            && message.metadata.id == query.metadata.id
            && message.queries == query.queries
        {
            return Ok(message);
        }
    }
}

async fn over_tcp(server: SocketAddr, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut buffer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut buffer).await?;
    Message::from_vec(&buffer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_addresses_or_files() {
        assert_eq!(servers("192.0.2.1").unwrap(), ["192.0.2.1:53".parse().unwrap()]);
        assert_eq!(servers("dns://192.0.2.1:5353").unwrap(), ["192.0.2.1:5353".parse().unwrap()]);
        assert!(servers("tls://192.0.2.1").is_err() && servers("/no/such/file").is_err());
        assert_eq!(resolv_conf("search x\nnameserver 192.0.2.9\nnameserver bad\n").len(), 1);
    }
}
