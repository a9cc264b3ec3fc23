//! Keys, certificates, users and kubeconfigs of a control plane.

use crate::{
    directory::Directory,
    error::{Error, Result},
};
use k8s_openapi::api::{authentication::v1::TokenRequest, core::v1::ServiceAccount};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use std::{fmt::Write as _, path::Path};

/// The users beside the service accounts: name and groups. Each has a context of that name in the
/// kubeconfig.
const USERS: &[(&str, &[&str])] = &[
    (ADMIN, &["system:masters"]),
    ("alice", &["service-team"]),
    ("bob", &["approvers"]),
    ("carol", &["approvers", "senior"]),
    ("dave", &["oncall"]),
];
const ADMIN: &str = "admin";

/// Every name of the API server; a client behind the forwarder uses the loopback address too.
const SERVER_NAMES: &[&str] = &["127.0.0.1", "localhost", "kubernetes.default.svc"];

/// The files' names in the state directory.
pub(crate) const CA: &str = "ca.crt";
pub(crate) const SERVER_CERTIFICATE: &str = "apiserver.crt";
pub(crate) const SERVER_KEY: &str = "apiserver.key";
pub(crate) const SERVICE_ACCOUNT_KEY: &str = "service-account.key";
pub(crate) const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "service-account.pub";
pub(crate) const TOKENS: &str = "tokens.csv";

/// Creates all of them for an API server at `server`.
pub(crate) fn write(dir: &Directory, server: &str) -> Result<()> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    authority
        .distinguished_name
        .push(DnType::CommonName, "countersign test cluster");
    let ca = authority.self_signed(&authority_key)?.pem();

    let server_key = KeyPair::generate()?;
    let mut certificate = CertificateParams::new(
        SERVER_NAMES
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
    )?;
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    certificate
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    let certificate = certificate.signed_by(
        &server_key,
        &Issuer::from_params(&authority, &authority_key),
    )?;

    let service_accounts = KeyPair::generate()?;
    let tokens: Vec<_> = USERS
        .iter()
        .map(|_| format!("{:032x}", rand::random::<u128>()))
        .collect();
    let mut token_file = String::new();
    for ((user, groups), token) in USERS.iter().zip(&tokens) {
        let _ = writeln!(
            token_file,
            r#"{token},{user},{user},"{}""#,
            groups.join(",")
        );
    }
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "test",
            "cluster": { "server": server, "certificate-authority": dir.join(CA) },
        }],
        "users": USERS.iter().zip(&tokens)
            .map(|((user, _), token)| json!({ "name": user, "user": { "token": token } }))
            .collect::<Vec<_>>(),
        "contexts": USERS.iter()
            .map(|(user, _)| json!({ "name": user, "context": { "cluster": "test", "user": user } }))
            .collect::<Vec<_>>(),
        "current-context": ADMIN,
    });

    for (name, content) in [
        (CA, ca),
        (SERVER_CERTIFICATE, certificate.pem()),
        (SERVER_KEY, server_key.serialize_pem()),
        (SERVICE_ACCOUNT_KEY, service_accounts.serialize_pem()),
        (
            SERVICE_ACCOUNT_PUBLIC_KEY,
            service_accounts.public_key_pem(),
        ),
        (TOKENS, token_file),
    ] {
        Directory::write(&dir.join(name), content)?;
    }
    Directory::write(&dir.kubeconfig(), format!("{kubeconfig:#}\n"))
}

/// Writes a variant of a kubeconfig with another address of the API server.
pub(crate) fn moved(from: &Path, to: &Path, server: &str) -> Result<()> {
    let mut kubeconfig = read(from)?;
    for cluster in kubeconfig
        .clusters
        .iter_mut()
        .filter_map(|named| named.cluster.as_mut())
    {
        cluster.server = Some(server.to_owned());
    }
    Directory::write(to, json!(kubeconfig).to_string())
}

/// Writes a variant of a kubeconfig in which every user has this bearer token.
pub(crate) fn with_token(from: &Path, to: &Path, token: &str) -> Result<()> {
    let mut kubeconfig = read(from)?;
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = serde_json::from_value(json!({ "token": token })).ok();
    }
    Directory::write(to, json!(kubeconfig).to_string())
}

/// A token of a `ServiceAccount`, as the kubelet would mount it.
pub(crate) async fn token(client: &Client, namespace: &str, account: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let mut request = TokenRequest::default();
    request.spec.get_or_insert_default().expiration_seconds = Some(24 * 60 * 60);
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .map_err(Error::kubernetes(format!(
            "get a token for the ServiceAccount {namespace}/{account}"
        )))?;
    Ok(answer
        .status
        .and_then(|status| status.token)
        .unwrap_or_default())
}

fn read(path: &Path) -> Result<Kubeconfig> {
    Kubeconfig::read_from(path).map_err(|source| Error::Kubeconfig {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// A client for the kubeconfig's current context, or for another one.
pub(crate) async fn client(kubeconfig: &Path, context: Option<&str>) -> Result<Client> {
    let options = KubeConfigOptions {
        context: context.map(ToOwned::to_owned),
        ..Default::default()
    };
    let config = Config::from_custom_kubeconfig(read(kubeconfig)?, &options)
        .await
        .map_err(|source| Error::Kubeconfig {
            path: kubeconfig.to_owned(),
            source: Box::new(source),
        })?;
    Client::try_from(config).map_err(Error::kubernetes("make a client"))
}
