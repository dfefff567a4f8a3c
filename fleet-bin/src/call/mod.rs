//! Calls: what a command asks for, as a value that can be carried out here or sent to the daemon.
//!
//! Each call is a type with its route in the API. Its fields are the path's parameters and the body; so the same type
//! is what the command line makes, what goes over the socket, and what the daemon carries out.

mod span;
mod voice;
mod with;
pub(crate) mod written;

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use span::Span;
pub(crate) use voice::{Said, Voice};
pub(crate) use with::{Desk, With, Workshop};

use crate::answer::Answer;
use crate::assemble::Context;
use crate::daemon::Client;
use crate::exit::Outcome;

/// Where a call is in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// How.
    pub(crate) method: Method,
    /// Where, with `{field}` for fields that are part of the path.
    pub(crate) path: &'static str,
}

/// Methods of HTTP that the API uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Reads.
    Get,
    /// Does something.
    Post,
    /// Sets something.
    Put,
    /// Removes something.
    Delete,
}

impl Route {
    /// A route that reads.
    pub(crate) const fn get(path: &'static str) -> Self {
        let method = Method::Get;
        Self { method, path }
    }

    /// A route that does something.
    pub(crate) const fn post(path: &'static str) -> Self {
        let method = Method::Post;
        Self { method, path }
    }

    /// A route that sets something.
    pub(crate) const fn put(path: &'static str) -> Self {
        let method = Method::Put;
        Self { method, path }
    }

    /// A route that removes something.
    pub(crate) const fn delete(path: &'static str) -> Self {
        let method = Method::Delete;
        Self { method, path }
    }
}

/// Something to be done, with everything needed to do it.
pub(crate) trait Call: Serialize + DeserializeOwned + Send + 'static {
    /// Where it is in the API.
    const ROUTE: Route;
    /// Whether whoever calls it wants to see what the rollouts do meanwhile.
    const FOLLOWS_ROLLOUTS: bool = false;
    /// What it is carried out with.
    type With: With;

    /// Does it.
    fn carry_out(self, with: &Self::With) -> impl Future<Output = Outcome<Answer>> + Send;
}

impl Context {
    /// Has a call carried out: by the daemon if there is one, else here, alone on the data directory.
    ///
    /// # Errors
    /// Whatever it failed with, there or here.
    pub(crate) async fn ask<C: Call>(&self, call: C) -> Outcome<Answer> {
        if let Some(client) = Client::of(&self.data_dir()?)? {
            return client.ask(&call, self).await;
        }
        let with = C::With::open(self).await?;
        call.carry_out(&with).await
    }

    /// The same, and prints the answer.
    ///
    /// # Errors
    /// As [`Context::ask`].
    pub(crate) async fn carry_out<C: Call>(&self, call: C) -> Outcome {
        let answer = self.ask(call).await?;
        self.out.answer(answer)
    }
}
