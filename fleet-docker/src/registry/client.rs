//! The client: caches, single flights, and the port.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::image::{Digest, ImageRef};
use fleet_core::model::{Platform, Release};
use fleet_core::ports::{PortError, PortErrorKind, ReleaseSource};
use fleet_core::time::Timestamp;
use moka::future::Cache;
use oci_spec::image::{Descriptor, ImageManifest};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use super::auth::Auth;
use super::endpoint::Endpoint;
use super::error::{OptionsError, corrupt, failure, shared};
use super::host::{Host, Question};
use super::http::{builder, private_client};
use super::manifest::{self, ConfigFacts, Content, Document};
use super::options::{HostOptions, RegistryOptions};
use super::question::{
    content_digest, head_is_unknown, header_text, join, manifest_question, modified, next_page,
    scope, tag_of,
};

/// Largest image config.
const CONFIG_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest page of a list of tags.
const TAGS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most pages of a list of tags: 100,000 tags.
const TAG_PAGES_MAX: usize = 100;
/// Tags asked for at once.
const TAG_PAGE: usize = 1000;
/// Most answers about tags that are remembered at once.
const ANSWERS_MAX: u64 = 100_000;
/// How long the answer of a flight can be joined where its first caller went away before taking it off.
const FLIGHT_LIFE: Duration = Duration::from_secs(1);
/// Documents that are remembered, by their size in bytes. They never change: their digest is their name.
const DOCUMENTS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Configs that are remembered.
const CONFIGS_MAX: u64 = 200;

/// Asks registries what they offer. Cheap to share behind an `Arc`; one per process is enough.
#[derive(Debug)]
pub struct RegistryClient {
    options: RegistryOptions,
    clients: HashMap<String, reqwest::Client>,
    client: reqwest::Client,
    loopback_client: reqwest::Client,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    answers: Cache<TagKey, Tagged>,
    flights: Cache<TagKey, Tagged>,
    documents: Cache<DocumentKey, Arc<Document>>,
    configs: Cache<DocumentKey, Arc<ConfigFacts>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TagKey {
    registry: String,
    repository: String,
    tag: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DocumentKey {
    registry: String,
    repository: String,
    digest: Digest,
}

/// What a tag pointed to when it was asked for.
#[derive(Debug, Clone)]
struct Tagged {
    digest: Digest,
    modified: Option<Timestamp>,
}

impl RegistryClient {
    /// Sets up a client. Nothing is asked yet.
    ///
    /// # Errors
    /// A certificate authority cannot be read, or a configured registry is not a host.
    ///
    /// # Panics
    /// No TLS provider is installed in this process: the program (or test) installs one before, see `rustls`.
    pub fn new(options: RegistryOptions) -> Result<Self, OptionsError> {
        let mut clients = HashMap::new();
        for (registry, host) in &options.hosts {
            if Endpoint::of(registry, host).is_none() {
                return Err(OptionsError::Registry {
                    found: registry.clone(),
                });
            }
            if !host.ca_files.is_empty() {
                clients.insert(registry.clone(), private_client(registry, host, &options)?);
            }
        }
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|source| OptionsError::Client {
                registry: "all registries".to_owned(),
                source,
            })
        };
        let documents = Cache::builder()
            .max_capacity(DOCUMENTS_BYTES_MAX)
            .weigher(|_, document: &Arc<Document>| {
                u32::try_from(document.bytes).unwrap_or(u32::MAX)
            })
            .build();
        Ok(Self {
            clients,
            client: build(builder(&options))?,
            loopback_client: build(builder(&options).no_proxy())?,
            hosts: Mutex::new(HashMap::new()),
            answers: Cache::builder()
                .max_capacity(ANSWERS_MAX)
                .time_to_live(options.answer_ttl)
                .build(),
            flights: Cache::builder()
                .max_capacity(ANSWERS_MAX)
                .time_to_live(FLIGHT_LIFE)
                .build(),
            documents,
            configs: Cache::new(CONFIGS_MAX),
            options,
        })
    }

    fn host(&self, registry: &str) -> Result<Arc<Host>, PortError> {
        // The map is only ever added to, entry by entry.
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(registry) {
            return Ok(Arc::clone(host));
        }
        let default = HostOptions::default();
        let settings = self.options.hosts.get(registry).unwrap_or(&default);
        let endpoint = Endpoint::of(registry, settings).ok_or_else(|| {
            failure(
                PortErrorKind::Invalid,
                format!("expected a registry's host with an optional port, found {registry:?}"),
            )
        })?;
        let client = match self.clients.get(registry) {
            Some(client) => client.clone(),
            None if endpoint.is_loopback() => self.loopback_client.clone(),
            None => self.client.clone(),
        };
        let auth = Auth::new(
            endpoint.clone(),
            settings.login.clone(),
            self.options.docker_config.clone(),
        );
        let host = Arc::new(Host::new(endpoint, client, auth, &self.options));
        hosts.insert(registry.to_owned(), Arc::clone(&host));
        Ok(host)
    }

    /// What a tag points to, from this cycle's answers if it was asked before.
    async fn tagged(&self, image: &ImageRef, key: TagKey) -> Result<Tagged, PortError> {
        let answer = self.answers.try_get_with(key, self.ask_tag(image)).await;
        answer.map_err(shared)
    }

    /// What a tag points to now. Callers that ask at the same time share one request.
    async fn tagged_now(&self, image: &ImageRef, key: TagKey) -> Result<Tagged, PortError> {
        let answer = self
            .flights
            .try_get_with(key.clone(), self.ask_tag(image))
            .await;
        self.flights.invalidate(&key).await;
        let tagged = answer.map_err(shared)?;
        self.answers.insert(key, tagged.clone()).await;
        Ok(tagged)
    }

    async fn ask_tag(&self, image: &ImageRef) -> Result<Tagged, PortError> {
        let host = self.host(image.registry())?;
        let question = manifest_question(&host, image, tag_of(image)?, Method::HEAD)?;
        let headers = match host.ask(&question).await {
            Ok(answer) => answer.headers,
            Err(refusal) if head_is_unknown(&refusal) => HeaderMap::new(),
            Err(refusal) => return Err(refusal.error),
        };
        if let Some(digest) = content_digest(&headers) {
            return Ok(Tagged {
                digest,
                modified: modified(&headers),
            });
        }
        let document = self.get_document(&host, image, None).await?;
        Ok(Tagged {
            digest: document.digest.clone(),
            modified: document.pushed_at,
        })
    }

    /// A document by its digest, from memory if it was read before.
    async fn document(
        &self,
        image: &ImageRef,
        digest: &Digest,
    ) -> Result<Arc<Document>, PortError> {
        let key = document_key(image, digest);
        let host = self.host(image.registry())?;
        let get = self.get_document(&host, image, Some(digest));
        self.documents.try_get_with(key, get).await.map_err(shared)
    }

    /// Reads a document by its digest, or by the image's tag, and checks it.
    async fn get_document(
        &self,
        host: &Host,
        image: &ImageRef,
        digest: Option<&Digest>,
    ) -> Result<Arc<Document>, PortError> {
        let reference = match digest {
            Some(digest) => digest.as_str(),
            None => tag_of(image)?,
        };
        let question = manifest_question(host, image, reference, Method::GET)?;
        let answer = host.ask(&question).await.map_err(|refusal| refusal.error)?;
        let said = content_digest(&answer.headers);
        let named: Vec<_> = digest.into_iter().chain(said.as_ref()).collect();
        let content_type = header_text(&answer.headers, &CONTENT_TYPE);
        let mut document = manifest::read(&question.what, &answer.body, content_type, &named)?;
        document.pushed_at = modified(&answer.headers);
        let document = Arc::new(document);
        if digest.is_none() {
            let key = document_key(image, &document.digest);
            self.documents.insert(key, Arc::clone(&document)).await;
        }
        Ok(document)
    }

    async fn config(
        &self,
        image: &ImageRef,
        manifest: &ImageManifest,
    ) -> Result<(Digest, Arc<ConfigFacts>), PortError> {
        let what = image.to_string();
        let digest = manifest::digest_of(&what, manifest.config())?;
        let host = self.host(image.registry())?;
        let get = async {
            let path = format!("{}/blobs/{digest}", image.repository());
            let question = Question {
                method: Method::GET,
                url: join(&host, &path)?,
                accept: None,
                scope: scope(image),
                what: format!("the config of {what}"),
                cap: CONFIG_BYTES_MAX,
            };
            let answer = host.ask(&question).await.map_err(|refusal| refusal.error)?;
            manifest::read_config(&what, &answer.body, &digest).map(Arc::new)
        };
        let facts = self
            .configs
            .try_get_with(document_key(image, &digest), get)
            .await;
        facts.map(|facts| (digest.clone(), facts)).map_err(shared)
    }

    async fn release(
        &self,
        image: &ImageRef,
        tagged: Tagged,
        platform: &Platform,
    ) -> Result<Release, PortError> {
        let what = image.to_string();
        let top = self.document(image, &tagged.digest).await?;
        let mut of_index = None;
        let document = match &top.content {
            Content::Manifest(_) => Arc::clone(&top),
            Content::Index(index) => {
                of_index = index.annotations().as_ref();
                let entry = manifest::entry_for(&what, index, platform)?;
                let digest = manifest::digest_of(&what, entry)?;
                self.document(image, &digest).await?
            }
        };
        let Content::Manifest(manifest) = &document.content else {
            return Err(corrupt(format!(
                "expected a manifest in the index of {what}, found another index"
            )));
        };
        manifest::check_is_image(&what, manifest)?;
        let (config_digest, facts) = self.config(image, manifest).await?;
        // Configs often leave the variant out, which the index has already told.
        let found = &facts.platform;
        let fits = match &top.content {
            Content::Index(_) => {
                found.os == platform.os && found.architecture == platform.architecture
            }
            Content::Manifest(_) => manifest::rank(found, platform).is_some(),
        };
        if !fits {
            return Err(failure(
                PortErrorKind::NotFound,
                format!(
                    "expected {what} for {}, found it for {}",
                    manifest::words(platform),
                    manifest::words(found)
                ),
            ));
        }
        let of_manifest = manifest.annotations().iter().flatten();
        let published = of_manifest.chain(of_index.into_iter().flatten());
        let annotations = manifest::kept(published.chain(&facts.labels));
        Ok(Release {
            image: image.pinned(tagged.digest),
            platform_digest: document.digest.clone(),
            config_digest: Some(config_digest),
            local: None,
            pushed_at: tagged.modified.or(top.pushed_at),
            size_bytes: manifest
                .layers()
                .iter()
                .map(Descriptor::size)
                .fold(0, u64::saturating_add),
            annotations,
        })
    }
}

#[async_trait]
impl ReleaseSource for RegistryClient {
    /// Questions in flight go on.
    fn begin_cycle(&self) {
        self.answers.invalidate_all();
    }

    async fn digest(&self, image: &ImageRef) -> Result<Digest, PortError> {
        match image.digest() {
            Some(digest) => Ok(digest.clone()),
            None => Ok(self.tagged(image, tag_key(image)?).await?.digest),
        }
    }

    async fn resolve(&self, image: &ImageRef, platform: &Platform) -> Result<Release, PortError> {
        if let Some(digest) = image.digest() {
            let tagged = Tagged {
                digest: digest.clone(),
                modified: None,
            };
            return self.release(image, tagged, platform).await;
        }
        let key = tag_key(image)?;
        let tagged = self.tagged_now(image, key.clone()).await?;
        match self.release(image, tagged, platform).await {
            // The tag may have moved between the two requests, and what it pointed to been deleted.
            Err(error) if error.is_not_found() => {
                let tagged = self.tagged_now(image, key).await?;
                self.release(image, tagged, platform).await
            }
            result => result,
        }
    }

    async fn tags(&self, image: &ImageRef) -> Result<Vec<String>, PortError> {
        let host = self.host(image.registry())?;
        let mut url = join(
            &host,
            &format!("{}/tags/list?n={TAG_PAGE}", image.repository()),
        )?;
        let mut tags = Vec::new();
        for _ in 0..TAG_PAGES_MAX {
            let question = Question {
                method: Method::GET,
                url: url.clone(),
                accept: None,
                scope: scope(image),
                what: format!("the tags of {}", image.familiar_repository()),
                cap: TAGS_BYTES_MAX,
            };
            let answer = host.ask(&question).await.map_err(|refusal| refusal.error)?;
            let page: TagPage = serde_json::from_slice(&answer.body).map_err(|error| {
                corrupt(format!("{} cannot be read", question.what)).with_source(error)
            })?;
            tags.extend(page.tags.unwrap_or_default());
            match next_page(&url, &answer.headers) {
                Some(next) => url = next,
                None => return Ok(tags),
            }
        }
        Err(corrupt(format!(
            "expected at most {TAG_PAGES_MAX} pages of tags of {}, found more",
            image.familiar_repository()
        )))
    }
}

#[derive(serde::Deserialize)]
struct TagPage {
    tags: Option<Vec<String>>,
}

fn tag_key(image: &ImageRef) -> Result<TagKey, PortError> {
    Ok(TagKey {
        registry: image.registry().to_owned(),
        repository: image.repository().to_owned(),
        tag: tag_of(image)?.to_owned(),
    })
}

fn document_key(image: &ImageRef, digest: &Digest) -> DocumentKey {
    DocumentKey {
        registry: image.registry().to_owned(),
        repository: image.repository().to_owned(),
        digest: digest.clone(),
    }
}
