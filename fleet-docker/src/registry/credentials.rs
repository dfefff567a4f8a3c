//! Finds the credentials of one registry: configured ones first, then Docker's.
//!
//! "None there" is anonymous; "there, but not to be had" (a helper that fails, a file that cannot be read) is an error:
//! asking anonymously instead would hide the cause behind a 404.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use fleet_core::ports::PortError;
use secrecy::{ExposeSecret as _, SecretString};

use super::endpoint::Endpoint;
use super::error::denied;
use super::options::{DockerConfig, Login, RegistryOptions, Secret};

/// Credentials in hand. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub(super) enum Credentials {
    /// None.
    Anonymous,
    /// Name and password.
    Password {
        username: String,
        password: SecretString,
    },
    /// Exchanged for a bearer token.
    IdentityToken(SecretString),
}

/// Finds the credentials of a registry. Files and helper programs are read off the async threads.
pub(super) async fn find(
    endpoint: &Endpoint,
    login: Option<&Login>,
    docker: &DockerConfig,
) -> Result<Credentials, PortError> {
    let login = login.cloned();
    let docker = docker.clone();
    let name = endpoint.name.clone();
    let key = endpoint.credential_key.clone();
    tokio::task::spawn_blocking(move || match login {
        Some(login) => configured(&name, login),
        None => match config_path(&docker) {
            Some(path) => from_docker(&name, &key, &path),
            None => Ok(Credentials::Anonymous),
        },
    })
    .await
    .map_err(|error| denied("the credentials could not be looked up").with_source(error))?
}

/// The credentials of a registry as the engine takes them for a pull, none without a login.
pub(crate) async fn for_engine(
    registry: &str,
    options: &RegistryOptions,
) -> Result<Option<serde_json::Value>, PortError> {
    let host = options.hosts.get(registry).cloned().unwrap_or_default();
    let Some(endpoint) = Endpoint::of(registry, &host) else {
        return Ok(None);
    };
    let server = &endpoint.credential_key;
    let found = find(&endpoint, host.login.as_ref(), &options.docker_config).await?;
    Ok(match &found {
        Credentials::Anonymous => None,
        Credentials::Password { username, password } => Some(serde_json::json!({
            "username": username,
            "password": password.expose_secret(),
            "serveraddress": server,
        })),
        Credentials::IdentityToken(token) => Some(serde_json::json!({
            "identitytoken": token.expose_secret(),
            "serveraddress": server,
        })),
    })
}

fn configured(registry: &str, login: Login) -> Result<Credentials, PortError> {
    Ok(match login {
        Login::Password { username, password } => Credentials::Password {
            username,
            password: reveal(registry, password)?,
        },
        Login::IdentityToken(token) => Credentials::IdentityToken(reveal(registry, token)?),
    })
}

fn reveal(registry: &str, secret: Secret) -> Result<SecretString, PortError> {
    match secret {
        Secret::Text(text) => Ok(text),
        Secret::File(path) => std::fs::read_to_string(&path)
            .map(|text| SecretString::from(text.trim_end()))
            .map_err(|error| {
                let path = path.display();
                denied(format!(
                    "the secret for {registry} cannot be read from {path}"
                ))
                .with_source(error)
            }),
    }
}

fn config_path(docker: &DockerConfig) -> Option<PathBuf> {
    match docker {
        DockerConfig::Ignore => None,
        DockerConfig::File(path) => Some(path.clone()),
        DockerConfig::Default => std::env::var_os("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")))
            .map(|folder| folder.join("config.json")),
    }
}

fn from_docker(registry: &str, key: &str, path: &Path) -> Result<Credentials, PortError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Credentials::Anonymous),
        Err(error) => {
            let path = path.display();
            return Err(denied(format!("Docker's config {path} cannot be read")).with_source(error));
        }
    };
    match docker_credential::get_credential_from_reader(BufReader::new(file), key) {
        Ok(DockerCredential::UsernamePassword(username, _)) if username.is_empty() => {
            Ok(Credentials::Anonymous)
        }
        Ok(DockerCredential::UsernamePassword(username, password)) => Ok(Credentials::Password {
            username,
            password: password.into(),
        }),
        Ok(DockerCredential::IdentityToken(token)) => Ok(Credentials::IdentityToken(token.into())),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(Credentials::Anonymous),
        // The words by which every helper says that it holds nothing for a server.
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if stdout.contains("credentials not found")
                || stderr.contains("credentials not found") =>
        {
            Ok(Credentials::Anonymous)
        }
        Err(error) => Err(denied(format!(
            "Docker's credentials for {registry} cannot be had: {} (from {})",
            reason(&error),
            path.display()
        ))),
    }
}

/// What went wrong, without the helper's output, which may hold the secret itself.
fn reason(error: &CredentialRetrievalError) -> String {
    match error {
        CredentialRetrievalError::HelperFailure { helper, .. } => {
            format!("the program {helper} failed")
        }
        CredentialRetrievalError::HelperCommunicationError => {
            "the configured credential helper cannot be run".to_owned()
        }
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::registry::options::HostOptions;

    fn endpoint(name: &str) -> Endpoint {
        Endpoint::of(name, &HostOptions::default()).unwrap()
    }

    fn text(credentials: &Credentials) -> String {
        match credentials {
            Credentials::Anonymous => "anonymous".to_owned(),
            Credentials::Password { username, password } => {
                format!("{username}:{}", password.expose_secret())
            }
            Credentials::IdentityToken(token) => format!("token {}", token.expose_secret()),
        }
    }

    async fn from_config(json: &str, registry: &str) -> Result<String, PortError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, json).unwrap();
        find(&endpoint(registry), None, &DockerConfig::File(path))
            .await
            .map(|found| text(&found))
    }

    #[tokio::test]
    async fn dockers_config_is_read_as_docker_writes_it() {
        let config = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOnB3"},
            "ghcr.io":{"auth":"YTpi"},
            "acr.example":{"auth":"MDAwMDo=","identitytoken":"idt"},
            "empty.example":{}}}"#;
        for (registry, expect) in [
            ("docker.io", "hub:pw"),
            ("ghcr.io", "a:b"),
            ("acr.example", "token idt"),
            ("empty.example", "anonymous"),
            ("ghcr.io:444", "anonymous"),
            ("evil.ghcr.io", "anonymous"),
        ] {
            assert_eq!(
                from_config(config, registry).await.unwrap(),
                expect,
                "{registry}"
            );
        }
    }

    #[tokio::test]
    async fn a_helper_that_cannot_be_run_is_an_error_and_not_anonymous() {
        let error = from_config(r#"{"credsStore":"no-such-helper-of-fleet"}"#, "ghcr.io")
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("helper cannot be run"),
            "{error}"
        );
        assert!(from_config("{", "ghcr.io").await.is_err());
    }

    #[tokio::test]
    async fn a_missing_config_is_anonymous_and_a_configured_login_wins() {
        let missing = DockerConfig::File("/nonexistent/config.json".into());
        let found = find(&endpoint("ghcr.io"), None, &missing).await.unwrap();
        assert_eq!(text(&found), "anonymous");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "s3cret\n").unwrap();
        let login = |path| Login::Password {
            username: "me".to_owned(),
            password: Secret::File(path),
        };
        let found = find(&endpoint("ghcr.io"), Some(&login(path)), &missing)
            .await
            .unwrap();
        assert_eq!(text(&found), "me:s3cret");
        assert!(!format!("{found:?}").contains("s3cret"));
        let gone = login("/nonexistent/password".into());
        assert!(
            find(&endpoint("ghcr.io"), Some(&gone), &missing)
                .await
                .is_err()
        );
    }
}
