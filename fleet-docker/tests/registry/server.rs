//! Debian's `docker-registry`, started by a test on a free port and ended with it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::header::CONTENT_TYPE;
use tempfile::TempDir;

use crate::support::{Image, OCI_INDEX, OCI_MANIFEST};

/// A registry of its own, with its data in a folder of its own.
pub(crate) struct Registry {
    /// `127.0.0.1:PORT`.
    pub(crate) name: String,
    /// The certificate authority, with TLS.
    pub(crate) ca: Option<PathBuf>,
    login: Option<(&'static str, &'static str)>,
    http: reqwest::Client,
    child: Child,
    folder: TempDir,
}

/// What the registry demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    Nothing,
    BasicLogin,
    Tls,
}

pub(crate) const USER: &str = "robot";
pub(crate) const PASSWORD: &str = "correct horse";

impl Registry {
    pub(crate) async fn start(demand: Demand) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap().to_string();
        drop(listener);
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: {name}\n",
            folder.path().join("data").display()
        );
        let mut ca = None;
        if demand == Demand::Tls {
            make_certificates(folder.path());
            let path = |name: &str| folder.path().join(name).display().to_string();
            config.push_str(&format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                path("server.pem"),
                path("server.key")
            ));
            ca = Some(folder.path().join("ca.pem"));
        }
        let mut login = None;
        if demand == Demand::BasicLogin {
            let file = folder.path().join("htpasswd");
            std::fs::write(&file, run("htpasswd", &["-Bbn", USER, PASSWORD])).unwrap();
            config.push_str(&format!(
                "auth:\n  htpasswd: {{realm: test, path: {}}}\n",
                file.display()
            ));
            login = Some((USER, PASSWORD));
        }
        let config_file = folder.path().join("config.yml");
        std::fs::write(&config_file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config_file)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .expect("docker-registry is installed (Debian package docker-registry)");
        let http = http_client(ca.as_deref());
        let registry = Self {
            name,
            ca,
            login,
            http,
            child,
            folder,
        };
        registry.wait_until_it_answers().await;
        registry
    }

    async fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.http.get(self.url("")).send().await {
                Ok(_) => return,
                Err(error) if Instant::now() > deadline => {
                    let log = std::fs::read_to_string(self.folder.path().join("log"));
                    panic!("docker-registry does not answer: {error:?}; its log: {log:?}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Pushes an image, under a tag or (without one) by its digest alone.
    pub(crate) async fn push(&self, repository: &str, tag: Option<&str>, image: &Image) {
        for blob in &image.blobs {
            self.push_blob(repository, blob).await;
        }
        let digest = image.digest();
        let reference = tag.unwrap_or(digest.as_str());
        self.push_manifest(repository, reference, OCI_MANIFEST, &image.manifest)
            .await;
    }

    /// Pushes an index and its images.
    pub(crate) async fn push_index(
        &self,
        repository: &str,
        tag: &str,
        images: &[&Image],
        index: &[u8],
    ) {
        for image in images {
            self.push(repository, None, image).await;
        }
        self.push_manifest(repository, tag, OCI_INDEX, index).await;
    }

    pub(crate) async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) {
        let url = self.url(&format!("{repository}/manifests/{reference}"));
        let request = self
            .http
            .put(url)
            .header(CONTENT_TYPE, media_type)
            .body(bytes.to_vec());
        self.expect(request, 201).await;
    }

    async fn push_blob(&self, repository: &str, bytes: &[u8]) {
        let url = self.url(&format!("{repository}/blobs/uploads/"));
        let location = self.expect(self.http.post(url), 202).await;
        let digest = fleet_core::image::Digest::of(bytes);
        let separator = if location.contains('?') { '&' } else { '?' };
        let request = self
            .http
            .put(format!("{location}{separator}digest={digest}"))
            .body(bytes.to_vec());
        self.expect(request, 201).await;
    }

    /// Sends and returns the `Location`, if there is one.
    async fn expect(&self, mut request: reqwest::RequestBuilder, status: u16) -> String {
        if let Some((user, password)) = self.login {
            let pair = base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                format!("{user}:{password}"),
            );
            request = request.header("authorization", format!("Basic {pair}"));
        }
        let answer = request.send().await.unwrap();
        let found = answer.status().as_u16();
        let location = answer.headers().get("location").cloned();
        assert_eq!(found, status, "{:?}", answer.text().await);
        location
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/v2/{path}", self.name)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing more to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn http_client(ca: Option<&Path>) -> reqwest::Client {
    crate::support::install_provider();
    let mut builder = reqwest::Client::builder().no_proxy();
    if let Some(ca) = ca {
        let pem = std::fs::read(ca).unwrap();
        builder = builder.tls_certs_merge([reqwest::Certificate::from_pem(&pem).unwrap()]);
    }
    builder.build().unwrap()
}

/// A certificate authority and a certificate for 127.0.0.1 from it.
fn make_certificates(folder: &Path) {
    let path = |name: &str| folder.join(name).display().to_string();
    let (ca_key, ca, key, request, pem, extensions) = (
        path("ca.key"),
        path("ca.pem"),
        path("server.key"),
        path("server.csr"),
        path("server.pem"),
        path("extensions"),
    );
    std::fs::write(folder.join("extensions"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let curve = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let ca_args = [
        "req",
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=fleet test authority",
    ];
    run(
        "openssl",
        &[&ca_args[..], &curve, &["-keyout", &ca_key, "-out", &ca]].concat(),
    );
    let request_args = ["req", "-subj", "/CN=127.0.0.1"];
    run(
        "openssl",
        &[
            &request_args[..],
            &curve,
            &["-keyout", &key, "-out", &request],
        ]
        .concat(),
    );
    let sign = [
        "x509", "-req", "-days", "2", "-in", &request, "-CA", &ca, "-CAkey", &ca_key,
    ];
    let out = ["-CAcreateserial", "-extfile", &extensions, "-out", &pem];
    run("openssl", &[&sign[..], &out].concat());
}

/// Runs a program and returns what it prints.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| {
            panic!("{program} is needed for this test: {error}");
        });
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
