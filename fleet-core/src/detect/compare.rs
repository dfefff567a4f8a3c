//! Would another image run?
//!
//! Three digests name one image: that of the index, that of the platform's manifest and that of the config. The
//! engine's id is the config's digest in the classic image store and the index's or manifest's digest in the containerd
//! store. Each of them alone misleads: an index changes when an attestation or another platform is added, a manifest
//! when layers are compressed anew. What runs is named by the config, so an update is there if, and only if, neither
//! the config nor anything that stands for it is the same.

use crate::ids::ImageId;
use crate::image::{Digest, ImageRef};
use crate::model::{ImageInfo, Platform, Release};
use crate::ports::Deployed;

/// What an instance runs now, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// Reference that is followed; digests of other repositories say nothing.
    pub image: &'a ImageRef,
    /// Id of the image that the container was made from.
    pub image_id: &'a ImageId,
    /// That image in the engine; none if it is gone.
    pub info: Option<&'a ImageInfo>,
    /// What fleet put on the instance last.
    pub deployed: Option<&'a Deployed>,
}

impl Running<'_> {
    /// Whether this digest, of whatever kind, is known to name what runs on `platform`. False means "not known", not
    /// "another image".
    #[must_use]
    pub fn is_named_by(&self, digest: &Digest, platform: &Platform) -> bool {
        if self.image_id.as_str() == digest.as_str() {
            return true;
        }
        if let Some(deployed) = self.deployed
            && &deployed.image_id == self.image_id
            && deployed.image.same_repository(self.image)
            && &deployed.digest == digest
        {
            return true;
        }
        self.info.is_some_and(|info| {
            // An index names one image for each platform, so it proves nothing about an image of another one.
            same_machine(&info.platform, platform)
                && self.repo_digests().any(|known| &known == digest)
        })
    }

    /// Whether the release would run what runs already.
    #[must_use]
    pub fn is(&self, release: &Release, platform: &Platform) -> bool {
        let config = release.config_digest.as_ref();
        config.is_some_and(|config| config.as_str() == self.image_id.as_str())
            || release.local.as_ref() == Some(self.image_id)
            || self.is_named_by(&release.image.digest, platform)
            || self.is_named_by(&release.platform_digest, platform)
    }

    /// The digest under which the registry can tell what runs, where the id alone does not: in the containerd store the
    /// id is a digest of the registry's, and says nothing about the config. None in the classic store.
    #[must_use]
    pub fn digest_to_look_up(&self) -> Option<Digest> {
        self.repo_digests()
            .find(|digest| digest.as_str() == self.image_id.as_str())
    }

    fn repo_digests(&self) -> impl Iterator<Item = Digest> {
        let repository = self.image.familiar_repository();
        let entries = self.info.map(|info| info.repo_digests.as_slice());
        entries.unwrap_or_default().iter().filter_map(move |entry| {
            let (name, digest) = entry.split_once('@')?;
            (name == repository).then(|| digest.parse().ok())?
        })
    }
}

/// Whether two releases of one platform would run the same image.
#[must_use]
pub fn same_image(one: &Release, other: &Release) -> bool {
    one.platform_digest == other.platform_digest
        || (one.config_digest.is_some() && one.config_digest == other.config_digest)
}

fn same_machine(one: &Platform, other: &Platform) -> bool {
    let variants_agree =
        one.variant == other.variant || one.variant.is_empty() || other.variant.is_empty();
    one.os == other.os && one.architecture == other.architecture && variants_agree
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::time::Timestamp;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn id(name: &str) -> ImageId {
        ImageId::new(digest(name).as_str()).unwrap()
    }

    fn platform(architecture: &str) -> Platform {
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: String::new(),
        }
    }

    fn app() -> ImageRef {
        "r.example/app:1".parse().unwrap()
    }

    fn info(image_id: &str, repo_digests: &[&str]) -> ImageInfo {
        ImageInfo {
            id: id(image_id),
            repo_digests: repo_digests
                .iter()
                .map(|name| match name.split_once('@') {
                    Some((repository, name)) => format!("{repository}@{}", digest(name)),
                    None => format!("r.example/app@{}", digest(name)),
                })
                .collect(),
            repo_tags: Vec::new(),
            platform: platform("amd64"),
            size_bytes: 1,
            labels: BTreeMap::new(),
        }
    }

    fn release(index: &str, manifest: &str, config: &str) -> Release {
        Release {
            image: app().pinned(digest(index)),
            platform_digest: digest(manifest),
            config_digest: Some(digest(config)),
            local: None,
            pushed_at: None,
            size_bytes: 0,
            annotations: BTreeMap::new(),
        }
    }

    #[track_caller]
    fn check(image_id: &str, repo_digests: &[&str], release: &Release, same: bool) {
        let (image, id, info) = (app(), id(image_id), info(image_id, repo_digests));
        let running = Running {
            image: &image,
            image_id: &id,
            info: Some(&info),
            deployed: None,
        };
        assert_eq!(running.is(release, &platform("amd64")), same);
    }

    #[test]
    fn the_classic_store_is_compared_by_config_whatever_changed_around_it() {
        check(
            "config",
            &["index"],
            &release("index", "manifest", "config"),
            true,
        );
        check(
            "config",
            &["index"],
            &release("index+attestation", "manifest", "config"),
            true,
        );
        check(
            "config",
            &["index"],
            &release("recompressed", "other manifest", "config"),
            true,
        );
        check("config", &[], &release("index", "manifest", "config"), true);
        check(
            "config",
            &["index"],
            &release("index 2", "manifest 2", "config 2"),
            false,
        );
        check(
            "config",
            &["old", "index"],
            &release("index", "manifest", "?"),
            true,
        );
    }

    #[test]
    fn the_containerd_store_is_compared_by_the_digest_that_is_its_id() {
        check(
            "index",
            &["index"],
            &release("index", "manifest", "config"),
            true,
        );
        check(
            "manifest",
            &["manifest"],
            &release("index", "manifest", "config"),
            true,
        );
        check(
            "index",
            &["index"],
            &release("index 2", "manifest 2", "config 2"),
            false,
        );
    }

    #[test]
    fn digests_of_other_repositories_and_platforms_prove_nothing() {
        let release = release("index", "manifest", "config");
        check("config 0", &["other.example/app@index"], &release, false);
        check("config 0", &["r.example/app-evil@index"], &release, false);
        let (image, id, mut info) = (app(), id("config 0"), info("config 0", &["index"]));
        info.platform = platform("arm64");
        let running = Running {
            image: &image,
            image_id: &id,
            info: Some(&info),
            deployed: None,
        };
        assert!(!running.is(&release, &platform("amd64")));
    }

    #[test]
    fn what_fleet_deployed_is_remembered_as_long_as_it_is_what_runs() {
        let (image, image_id) = (app(), id("config"));
        let mut deployed = Deployed {
            instance: crate::ids::InstanceId::local(crate::ids::InstanceName::new("web").unwrap()),
            image: app(),
            digest: digest("index"),
            image_id: id("config"),
            at: Timestamp::UNIX_EPOCH,
        };
        let named = |deployed: &Deployed| {
            let running = Running {
                image: &image,
                image_id: &image_id,
                info: None,
                deployed: Some(deployed),
            };
            running.is_named_by(&digest("index"), &platform("amd64"))
        };
        assert!(named(&deployed));
        deployed.image_id = id("what somebody put there by hand");
        assert!(!named(&deployed));
    }

    #[test]
    fn only_the_containerd_store_needs_to_look_up_what_runs() {
        let look_up = |image_id: &str, repo_digests: &[&str]| {
            let (image, id, info) = (app(), id(image_id), info(image_id, repo_digests));
            let running = Running {
                image: &image,
                image_id: &id,
                info: Some(&info),
                deployed: None,
            };
            running.digest_to_look_up()
        };
        assert_eq!(look_up("index", &["older", "index"]), Some(digest("index")));
        assert_eq!(look_up("config", &["index"]), None);
    }
}
