//! A little of Google Cloud Storage's XML API over HTTP, for tests on loopback: what `object_store` calls, and replies
//! that a test asks for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use object_store::gcp::GoogleCloudStorageBuilder;
use store::Store;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::Timeouts;

/// What the server does instead of serving, once.
#[derive(Debug, Clone)]
pub(crate) enum Instead {
    /// Answers this status.
    Status(u16),
    /// Promises the whole body, sends half, and closes.
    Cut,
    /// Never answers.
    Silence,
}

#[derive(Debug, Default)]
struct Shared {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    instead: Mutex<VecDeque<Instead>>,
    requests: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub(crate) struct FakeGcs {
    shared: Arc<Shared>,
    address: String,
}

const DATE: &str = "Tue, 03 Nov 2026 10:00:00 GMT";
const DATE_ISO: &str = "2026-11-03T10:00:00.000Z";
/// Objects in one page of LIST, as the real one has it.
const PAGE: usize = 1000;

impl FakeGcs {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let served = Arc::clone(&served);
                tokio::spawn(async move { connection(socket, &served).await });
            }
        });
        Self { shared, address }
    }

    pub(crate) fn store(&self, timeouts: Timeouts) -> Arc<dyn Store> {
        let builder = GoogleCloudStorageBuilder::new()
            .with_base_url(&self.address)
            .with_bearer_token("test");
        let client = crate::cloud::client_options(timeouts).with_allow_http(true);
        crate::cloud::google_from(builder, "bucket", timeouts, client).unwrap()
    }

    /// The next `times` requests are treated so.
    pub(crate) fn instead(&self, what: &Instead, times: usize) {
        self.shared
            .instead
            .lock()
            .unwrap()
            .extend(std::iter::repeat_n(what.clone(), times));
    }

    /// Nothing more is asked for.
    pub(crate) fn serve_again(&self) {
        self.shared.instead.lock().unwrap().clear();
    }

    pub(crate) fn put_foreign(&self, name: &str) {
        self.shared
            .objects
            .lock()
            .unwrap()
            .insert(name.to_owned(), b"foreign".to_vec());
    }

    /// First lines of the requests since the last call.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }
}

struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

fn reply(status: u16, headers: impl Into<String>, body: impl Into<Vec<u8>>) -> Reply {
    Reply {
        status,
        headers: headers.into(),
        body: body.into(),
    }
}

async fn connection(socket: TcpStream, shared: &Shared) {
    let mut socket = BufReader::new(socket);
    while let Some((line, range, body)) = request(&mut socket).await {
        shared.requests.lock().unwrap().push(line.clone());
        let instead = shared.instead.lock().unwrap().pop_front();
        let method = line.split(' ').next().unwrap_or_default().to_owned();
        let mut answer = match instead {
            Some(Instead::Status(status)) => reply(status, "", format!("<Error><Code>Fault{status}</Code></Error>")),
            Some(Instead::Silence) => std::future::pending().await,
            _ => serve(&line, range, body, shared),
        };
        let promised = answer.body.len();
        let cut = matches!(instead, Some(Instead::Cut));
        if cut || method == "HEAD" {
            answer.body.truncate(if cut { promised / 2 } else { 0 });
        }
        let head = format!(
            "HTTP/1.1 {} X\r\nContent-Length: {promised}\r\n{}\r\n",
            answer.status, answer.headers
        );
        let sent = async {
            socket.write_all(head.as_bytes()).await?;
            socket.write_all(&answer.body).await?;
            socket.flush().await
        };
        if sent.await.is_err() || cut {
            return;
        }
    }
}

type Request = (String, Option<(u64, u64)>, Vec<u8>);

async fn request(socket: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    socket.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
    let (mut length, mut range) = (0, None);
    loop {
        let mut header = String::new();
        socket.read_line(&mut header).await.ok().filter(|n| *n > 0)?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if let Some(value) = header.strip_prefix("range: bytes=") {
            let (start, end) = value.split_once('-')?;
            range = Some((start.parse().ok()?, end.parse().ok()?));
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some((line.trim_end().to_owned(), range, body))
}

fn serve(line: &str, range: Option<(u64, u64)>, body: Vec<u8>, shared: &Shared) -> Reply {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let url = url::Url::parse(&format!("http://x{target}")).unwrap();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let name = decoded(url.path().trim_start_matches("/bucket").trim_start_matches('/'));
    let mut objects = shared.objects.lock().unwrap();
    let stored = format!("ETag: \"e\"\r\nLast-Modified: {DATE}\r\nx-goog-generation: 1\r\n");
    match method {
        "PUT" => {
            objects.insert(name, body);
            reply(200, stored, "")
        }
        "DELETE" => reply(if objects.remove(&name).is_some() { 204 } else { 404 }, "", ""),
        "GET" if name.is_empty() => list(&objects, &query),
        "GET" | "HEAD" => match (objects.get(&name), range) {
            (None, _) => reply(404, "", "<Error><Code>NoSuchKey</Code></Error>"),
            (Some(o), None) => reply(200, stored, o.clone()),
            (Some(o), Some((start, _))) if start >= o.len() as u64 => reply(416, "", ""),
            (Some(o), Some((start, end))) => {
                let end = end.min(o.len() as u64 - 1);
                let told = format!("{stored}Content-Range: bytes {start}-{end}/{}\r\n", o.len());
                reply(206, told, &o[start as usize..=end as usize])
            }
        },
        _ => reply(400, "", ""),
    }
}

/// `%2D` and its like as the bytes they stand for.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        out.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        out.push_str(rest);
    }
    out
}

fn list(objects: &BTreeMap<String, Vec<u8>>, query: &BTreeMap<String, String>) -> Reply {
    let prefix = query.get("prefix").map_or("", String::as_str);
    let after = query.get("continuation-token").map_or("", String::as_str);
    let found: Vec<_> = objects
        .iter()
        .filter(|(k, _)| k.starts_with(prefix) && k.as_str() > after)
        .take(PAGE + 1)
        .collect();
    let mut xml = String::from("<ListBucketResult>");
    for (key, body) in found.iter().take(PAGE) {
        xml.push_str(&format!(
            "<Contents><Key>{key}</Key><LastModified>{DATE_ISO}</LastModified><ETag>e</ETag><Size>{}</Size></Contents>",
            body.len()
        ));
    }
    if found.len() > PAGE {
        xml.push_str(&format!(
            "<NextContinuationToken>{}</NextContinuationToken>",
            found[PAGE - 1].0
        ));
    }
    xml.push_str("</ListBucketResult>");
    reply(200, "", xml)
}
