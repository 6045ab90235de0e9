//! HTTP/1.1 over TLS, one connection for each request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::Pki;

const TIMEOUT: Duration = Duration::from_secs(30);

type Stream = BufReader<StreamOwned<ClientConnection, TcpStream>>;

/// Sends requests to a port of this machine as the administrator of a [`Pki`].
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    port: u16,
    headers: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub code: u16,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// The lines of an answer, as they come.
pub struct Lines {
    stream: Stream,
    chunked: bool,
    buffer: Vec<u8>,
}

impl Response {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Client {
    /// A client of the server at `port`.
    ///
    /// # Errors
    /// The files of the infrastructure cannot be used.
    pub fn new(pki: &Pki, port: u16) -> Result<Self> {
        Self::of(pki, "admin", port)
    }

    /// A client of the server at `port` that is somebody else: `user`.
    ///
    /// # Errors
    /// The files of the infrastructure cannot be used.
    pub fn of(pki: &Pki, name: &str, port: u16) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.file("ca.crt"))?)?;
        let chain = vec![CertificateDer::from_pem_file(pki.file(&format!("{name}.crt")))?];
        let key = PrivateKeyDer::from_pem_file(pki.file(&format!("{name}.key")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self { config: Arc::new(config), port, headers: String::new() })
    }

    /// A client that sends these headers besides. One that names `Connection` does not say that it ends.
    pub fn with(&self, headers: &[(&str, &str)]) -> Self {
        let mut client = self.clone();
        for (name, value) in headers {
            client.headers.push_str(&format!("{name}: {value}\r\n"));
        }
        client
    }

    /// Sends a request; a body comes with its media type.
    ///
    /// # Errors
    /// There is no answer.
    pub fn send(&self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Result<Response> {
        let (head, lines) = self.open(method, path, body)?;
        Self::whole(head, lines)
    }

    fn whole(head: Head, mut lines: Lines) -> Result<Response> {
        while lines.fill()? {}
        let body = String::from_utf8_lossy(&lines.buffer).into_owned();
        Ok(Response { code: head.code, headers: head.headers, body })
    }

    /// Sends a GET and returns the lines of its answer as they come.
    ///
    /// # Errors
    /// There is no answer, or one that is not good.
    pub fn lines(&self, path: &str) -> Result<Lines> {
        let (head, lines) = self.open("GET", path, None)?;
        anyhow::ensure!(head.code == 200, "{path}: {}", head.code);
        Ok(lines)
    }

    /// Sends a POST whose body comes a while after its head, and then a GET of `next` on the same connection. Returns both
    /// status codes.
    ///
    /// # Errors
    /// One of them has no answer.
    pub fn late_body(&self, path: &str, (media_type, body): (&str, &[u8]), next: &str) -> Result<(u16, u16)> {
        let mut stream = self.connect()?;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().flush()?;
        std::thread::sleep(Duration::from_millis(200));
        stream.get_mut().write_all(body)?;
        stream.get_mut().flush()?;
        let first = Head::read(&mut stream)?;
        std::io::copy(&mut (&mut stream).take(first.length), &mut std::io::sink())?;
        let head = format!("GET {next} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.get_mut().write_all(head.as_bytes())?;
        Ok((first.code, Head::read(&mut stream)?.code))
    }

    /// Sends a request whose body is framed already, as a header of this client says.
    ///
    /// # Errors
    /// There is no answer.
    pub fn send_framed(&self, method: &str, path: &str, media_type: &str, framed: &[u8]) -> Result<Response> {
        let mut stream = self.connect()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}Content-Type: {media_type}\r\n\r\n",
            self.headers
        );
        stream.get_mut().write_all(head.as_bytes())?;
        // The server may refuse a body before it has all of it.
        let _ = stream.get_mut().write_all(framed);
        let _ = stream.get_mut().flush();
        let head = Head::read(&mut stream)?;
        let chunked = head.chunked;
        Self::whole(head, Lines { stream, chunked, buffer: Vec::new() })
    }

    fn connect(&self) -> Result<Stream> {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        tcp.set_write_timeout(Some(TIMEOUT))?;
        let name = ServerName::try_from("localhost")?;
        Ok(BufReader::new(StreamOwned::new(ClientConnection::new(self.config.clone(), name)?, tcp)))
    }

    fn open(&self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Result<(Head, Lines)> {
        let mut stream = self.connect()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{}", self.headers);
        if !self.headers.contains("Connection: ") {
            head.push_str("Connection: close\r\n");
        }
        if let Some((media_type, content)) = body {
            head.push_str(&format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", content.len()));
        }
        head.push_str("\r\n");
        stream.get_mut().write_all(head.as_bytes())?;
        if let Some((_, content)) = body {
            // The server may refuse a body before it has all of it.
            let _ = stream.get_mut().write_all(content);
        }
        let _ = stream.get_mut().flush();
        let head = Head::read(&mut stream)?;
        let chunked = head.chunked;
        Ok((head, Lines { stream, chunked, buffer: Vec::new() }))
    }
}

/// What stands before the body of an answer.
struct Head {
    code: u16,
    chunked: bool,
    length: u64,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(stream: &mut Stream) -> Result<Self> {
        let mut line = String::new();
        stream.read_line(&mut line).context("reading the status line")?;
        let code = line.split(' ').nth(1).and_then(|c| c.parse().ok()).context("no status line")?;
        let mut head = Self { code, chunked: false, length: 0, headers: Vec::new() };
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                return Ok(head);
            }
            // A value may be empty.
            let (name, value) = line.trim().split_once(':').context("a header without a colon")?;
            let (name, value) = (name.to_ascii_lowercase(), value.trim());
            match (name.as_str(), value) {
                ("transfer-encoding", "chunked") => head.chunked = true,
                ("content-length", length) => head.length = length.parse()?,
                _ => {}
            }
            head.headers.push((name, value.to_owned()));
        }
    }
}

impl Lines {
    /// Reads more; false at the end.
    fn fill(&mut self) -> Result<bool> {
        let mut length = 8192;
        if self.chunked {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Ok(false);
            }
            length = usize::from_str_radix(line.trim(), 16).context("the length of a chunk")?;
            let mut chunk = vec![0; length];
            self.stream.read_exact(&mut chunk)?;
            self.stream.read_line(&mut line)?;
            self.buffer.extend(chunk);
            return Ok(length > 0);
        }
        let mut piece = vec![0; length];
        // Some ends come without the farewell of TLS.
        let read = self.stream.read(&mut piece).unwrap_or(0);
        self.buffer.extend(&piece[..read]);
        Ok(read > 0)
    }

    /// The next line, none at the end.
    ///
    /// # Errors
    /// Nothing came for a while, or the connection broke.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }
}
