//! A registry that answers as a test wants, and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fleet_core::image::Digest;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use crate::support::{Image, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};

/// A server with one function for all requests.
pub(crate) struct Server {
    server: MockServer,
    /// `127.0.0.1:PORT`.
    pub(crate) name: String,
}

struct Function<F>(F);

impl<F: Fn(&Request) -> ResponseTemplate + Send + Sync> Respond for Function<F> {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        (self.0)(request)
    }
}

impl Server {
    pub(crate) async fn start(
        answer: impl Fn(&Request) -> ResponseTemplate + Send + Sync + 'static,
    ) -> Self {
        let server = MockServer::start().await;
        Mock::given(any())
            .respond_with(Function(answer))
            .mount(&server)
            .await;
        Self {
            name: server.address().to_string(),
            server,
        }
    }

    pub(crate) async fn requests(&self) -> Vec<Request> {
        self.server.received_requests().await.unwrap()
    }

    /// `METHOD path` of every request.
    pub(crate) async fn asked(&self) -> Vec<String> {
        let requests = self.requests().await;
        let lines = requests
            .iter()
            .map(|r| format!("{} {}", r.method, r.url.path()));
        lines.collect()
    }
}

pub(crate) fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request
        .headers
        .get(name)
        .map(|value| value.to_str().unwrap())
}

pub(crate) fn status(code: u16) -> ResponseTemplate {
    ResponseTemplate::new(code)
}

/// Documents and blobs by digest and by tag, served as the distribution specification says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    documents: BTreeMap<String, (String, Vec<u8>)>,
    tags: BTreeMap<String, String>,
}

impl Shelf {
    /// Puts an image on the shelf under a tag.
    pub(crate) fn put(&self, tag: &str, image: &Image) {
        self.put_parts(image);
        self.tag(tag, image.digest().as_str());
    }

    /// Puts an index and its images on the shelf under a tag.
    pub(crate) fn put_index(&self, tag: &str, images: &[&Image], index: &[u8]) {
        for image in images {
            self.put_parts(image);
        }
        self.put_document(OCI_INDEX, index);
        self.tag(tag, Digest::of(index).as_str());
    }

    fn put_parts(&self, image: &Image) {
        self.put_document(OCI_MANIFEST, &image.manifest);
        for blob in &image.blobs {
            self.put_document(OCI_CONFIG, blob);
        }
    }

    pub(crate) fn put_document(&self, media_type: &str, bytes: &[u8]) {
        let digest = Digest::of(bytes).to_string();
        let document = (media_type.to_owned(), bytes.to_vec());
        self.0.lock().unwrap().documents.insert(digest, document);
    }

    pub(crate) fn tag(&self, tag: &str, digest: &str) {
        self.0
            .lock()
            .unwrap()
            .tags
            .insert(tag.to_owned(), digest.to_owned());
    }

    /// The answer to a request for a manifest or blob of any repository.
    pub(crate) fn answer(&self, request: &Request) -> ResponseTemplate {
        let inner = self.0.lock().unwrap();
        let last = request.url.path().rsplit('/').next().unwrap();
        let digest = inner.tags.get(last).map_or(last, String::as_str);
        match inner.documents.get(digest) {
            None => status(404),
            Some((media_type, bytes)) => status(200)
                .set_body_raw(bytes.clone(), media_type)
                .insert_header("docker-content-digest", digest),
        }
    }
}
