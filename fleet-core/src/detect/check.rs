//! Asks the ports, each distinct question once.
//!
//! However many instances follow one reference, it is asked for once; however many were made from one image, it is
//! looked at once. What one question brings never fails another: it is "unknown" for those who follow it.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;

use super::finding::Finding;
use super::fold::{Answer, Answers, Target, Watched};
use super::known::Known;
use super::subject::{Followed, Follows, Subject};
use crate::image::ImageRef;
use crate::model::Platform;
use crate::ports::{Availability, ImageStore, PortError, ReleaseSource};
use crate::time::Timestamp;

/// Questions under way at once. Registries have their own pace; this bounds memory and sockets.
const CONCURRENCY: usize = 16;

/// Asks what is new for these instances, as it is stored. See [`check_all`].
pub async fn check(
    releases: &dyn ReleaseSource,
    images: &dyn ImageStore,
    platform: &Platform,
    subjects: &[Subject],
    known: &Known,
    now: Timestamp,
) -> Vec<Availability> {
    let findings = check_all(releases, images, platform, subjects, known, now).await;
    findings.iter().filter_map(Finding::availability).collect()
}

/// Asks what is new for these instances: one finding for each, in their order.
///
/// A registry is asked once for each distinct reference, and for documents only where its digest is not one that is
/// known to be what runs. Nothing fails: what cannot be told is [`super::Verdict::Unknown`].
pub async fn check_all(
    releases: &dyn ReleaseSource,
    images: &dyn ImageStore,
    platform: &Platform,
    subjects: &[Subject],
    known: &Known,
    now: Timestamp,
) -> Vec<Finding> {
    releases.begin_cycle();
    let watched = watch(releases, subjects, known).await;
    let mut answers = Answers {
        platform,
        known,
        now,
        infos: HashMap::new(),
        local: HashMap::new(),
        digests: HashMap::new(),
        releases: HashMap::new(),
    };
    let ids: BTreeSet<&str> = subjects
        .iter()
        .map(|subject| subject.image_id.as_str())
        .collect();
    let infos = ask_each(ids, |id| async move { images.image(id).await }).await;
    // An engine that cannot say leaves less to compare with, never a wrong answer.
    answers.infos = infos
        .into_iter()
        .map(|(id, answer)| (id, answer.ok().flatten()))
        .collect();

    let (mut local, mut remote) = (BTreeSet::new(), BTreeSet::new());
    for watched in &watched {
        match &watched.target {
            Target::Local(image) => local.insert(image.clone()),
            Target::Remote(followed) => remote.insert(followed.image.clone()),
            Target::Unknown(_) => false,
        };
    }
    answers.local = ask_each(local, |image| async move {
        let reference = image.familiar_tag().unwrap_or_else(|| image.to_string());
        images.image(&reference).await
    })
    .await;
    answers.digests = ask_each(remote, |image| async move { releases.digest(&image).await }).await;

    let wanted = watched
        .iter()
        .flat_map(|watched| answers.releases_wanted(watched))
        .flatten();
    answers.releases = ask_each(wanted.collect(), |image| async move {
        releases.resolve(&image, platform).await.map(Arc::new)
    })
    .await;
    watched
        .iter()
        .map(|watched| answers.finding(watched))
        .collect()
}

/// Finds out what each instance follows; with a tag policy that takes the repository's tags.
async fn watch<'a>(
    releases: &dyn ReleaseSource,
    subjects: &'a [Subject],
    known: &Known,
) -> Vec<Watched<'a>> {
    let follows: Vec<Follows> = subjects
        .iter()
        .map(|subject| subject.follows(known.deployed(&subject.instance)))
        .collect();
    let repositories = follows.iter().filter_map(|follows| match follows {
        Follows::Newest { from, .. } => repository(from),
        _ => None,
    });
    let tags = ask_each(repositories.collect(), |image| async move {
        releases.tags(&image).await
    })
    .await;
    let watched = subjects
        .iter()
        .zip(follows)
        .map(|(subject, follows)| Watched {
            subject,
            target: target(follows, &tags),
        });
    watched.collect()
}

/// A reference that stands for a whole repository.
fn repository(image: &ImageRef) -> Option<ImageRef> {
    image.with_tag("latest").ok()
}

fn target(follows: Follows, tags: &HashMap<ImageRef, Answer<Vec<String>>>) -> Target {
    let (from, rules) = match follows {
        Follows::Reference(followed) => return Target::Remote(followed),
        Follows::Local(image) => return Target::Local(image),
        Follows::Nothing(reason) => return Target::Unknown(chain(&reason)),
        Follows::Newest { from, rules } => (from, rules),
    };
    match repository(&from).and_then(|repository| tags.get(&repository)) {
        Some(Ok(tags)) => {
            let chosen = rules.choose(from.tag().unwrap_or_default(), tags);
            // A tag that does not follow the grammar is not one that an engine could pull.
            let image = from.with_tag(chosen).unwrap_or_else(|_| from.clone());
            Target::Remote(Followed {
                image,
                asked_for: false,
            })
        }
        Some(Err(reason)) => Target::Unknown(reason.to_string()),
        None => Target::Unknown("its tags were not asked for".to_owned()),
    }
}

/// Asks each distinct question once, several at a time.
async fn ask_each<K, T, F, Fut>(questions: BTreeSet<K>, ask: F) -> HashMap<K, Answer<T>>
where
    K: Clone + Eq + Hash,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<T, PortError>>,
{
    let ask = &ask;
    stream::iter(questions)
        .map(|question| async move {
            let answer = ask(question.clone()).await;
            (question, answer.map_err(|error| Arc::from(chain(&error))))
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await
}

/// An error with its sources, for people.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
