use super::*;

/// A temporary file of the test.
fn file(name: &str, content: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("countersign-{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn headers_are_sent_with_each_question_and_shown_nowhere() {
    let key = file("api-key", "hunter1\n");
    let fake = Fake::start(|_| response(403, "text/plain", "tenant hunter")).await;
    let client = connect(PrometheusConfig {
        headers: vec![
            "X-Scope-OrgID=shop|cart".into(),
            "THANOS-TENANT = a=b".into(),
        ],
        header_files: vec![format!("X-Api-Key={}", key.display()).as_str().into()],
        ..config(&fake.url)
    });
    let mut expressed = ask(15);
    expressed.check = expressions();
    for (ask, secret) in [(ask(15), "hunter1"), (expressed, "hunter2")] {
        std::fs::write(&key, secret).unwrap();
        let before = fake.received().len();
        let windows = client.windows(&ask).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::PrometheusError);
        assert!(!message.contains("hunter") && !message.contains("shop|"));
        let received = fake.received();
        assert_eq!(received.len(), before + 4);
        for Received { headers, .. } in &received[before..] {
            assert_eq!(headers["x-scope-orgid"], "shop|cart");
            assert_eq!(headers["thanos-tenant"], "a=b");
            assert_eq!(headers["x-api-key"], secret);
        }
    }
    let shown = format!("{:?}", Pair::from("X-Scope-OrgID=hunter2"));
    assert!(!shown.contains("hunter2"), "{shown}");
    std::fs::remove_file(key).unwrap();
    let windows = client.windows(&ask(30)).await;
    let (_, message) = unanswered(&windows);
    assert!(
        message.contains("the header `x-api-key` for Prometheus in"),
        "{message}"
    );
}

#[test]
fn a_wrong_header_is_refused_and_its_value_not_repeated() {
    let table = [
        (
            "X-Scope-OrgID",
            "1. header for Prometheus (--prometheus-header) is not `NAME=VALUE`",
        ),
        ("X-Scope-OrgID:hunter2", "is not `NAME=VALUE`"),
        ("=hunter2", "is not `NAME=VALUE`"),
        ("X-Scope-OrgID=", "is not `NAME=VALUE`"),
        ("X Scope=hunter2", "is not `NAME=VALUE`"),
        ("X-Scope-OrgID=hunter2\r\nX-Evil: 1", "is not `NAME=VALUE`"),
        ("X-Scope-OrgID=hunter2\u{0}", "is not `NAME=VALUE`"),
        ("Authorization=Bearer hunter2", "--prometheus-token-file"),
        ("authorization=Basic hunter2", "--prometheus-username-file"),
        (
            "Host=hunter2",
            "`host` for Prometheus cannot be set: leave it out of --prometheus-header",
        ),
        ("Content-Length=1", "cannot be set"),
        ("Transfer-Encoding=chunked", "cannot be set"),
    ];
    let refused = |config| try_connect(config).err().unwrap().to_string();
    for (header, part) in table {
        let error = refused(PrometheusConfig {
            headers: vec![header.into()],
            ..config("http://prometheus")
        });
        assert!(error.contains(part) && !error.contains("hunter"), "{error}");
    }
    let twice = refused(PrometheusConfig {
        headers: vec!["X-Scope-OrgID=a".into()],
        header_files: vec!["x-scope-orgid=/b".into()],
        ..config("http://prometheus")
    });
    assert!(
        twice.contains("`x-scope-orgid` for Prometheus is given twice"),
        "{twice}"
    );
    let file = refused(PrometheusConfig {
        header_files: vec!["X-Ok=/a".into(), "no".into()],
        ..config("http://prometheus")
    });
    assert!(
        file.contains("the 2. header for Prometheus (--prometheus-header-file) is not `NAME=FILE`")
    );
}

#[tokio::test]
async fn a_password_is_read_at_each_use_and_shown_nowhere() {
    let (username, password) = (file("username", "ops\n"), file("password", "hunter1\n"));
    let fake = Fake::start(|_| response(401, "text/plain", "hunter")).await;
    let client = connect(PrometheusConfig {
        username_file: Some(username.clone()),
        password_file: Some(password.clone()),
        ..config(&fake.url)
    });
    // `ops:hunter1`, and a password with a space and a colon of its own.
    let table = [
        ("hunter1\n", "Basic b3BzOmh1bnRlcjE="),
        (" hunter:2\r\n", "Basic b3BzOiBodW50ZXI6Mg=="),
    ];
    for (content, expected) in table {
        std::fs::write(&password, content).unwrap();
        let windows = client.windows(&ask(15)).await;
        assert!(!unanswered(&windows).1.contains("hunter"));
        let last = fake.received().pop().unwrap().authorization;
        assert_eq!(last.as_deref(), Some(expected));
    }
    let received = fake.received().len();
    for (name, secret, part) in [
        ("o:ps", "hunter2", "the user name for Prometheus in"),
        ("ops", "", "the password for Prometheus in"),
        ("ops", "hunter2\nhunter3", "must be one line"),
        ("hunter2\nhunter3", "x", "must be one line"),
    ] {
        std::fs::write(&username, name).unwrap();
        std::fs::write(&password, secret).unwrap();
        let windows = client.windows(&ask(15)).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::PrometheusUnreachable);
        assert!(
            message.contains(part) && !message.contains("hunter"),
            "{message}"
        );
    }
    assert_eq!(
        fake.received().len(),
        received,
        "nothing is queried without a password"
    );
    std::fs::remove_file(username).unwrap();
    std::fs::remove_file(password).unwrap();
}

#[test]
fn credentials_that_contradict_each_other_are_refused() {
    let some = || Some(PathBuf::from("/some/file"));
    let refused = |config| try_connect(config).err().unwrap();
    let plain = || config("https://prometheus");
    let both = refused(PrometheusConfig {
        bearer_token_file: some(),
        username_file: some(),
        password_file: some(),
        ..plain()
    });
    assert!(matches!(both, ConfigError::TwoCredentials), "{both}");
    for (username_file, password_file) in [(some(), None), (None, some())] {
        let half = refused(PrometheusConfig {
            username_file,
            password_file,
            ..plain()
        });
        assert!(matches!(half, ConfigError::HalfOfBasic), "{half}");
    }
    for (certificate_file, key_file) in [(some(), None), (None, some())] {
        let half = refused(PrometheusConfig {
            certificate_file,
            key_file,
            ..plain()
        });
        assert!(matches!(half, ConfigError::HalfOfCertificate), "{half}");
    }
    let without_tls = refused(PrometheusConfig {
        certificate_file: some(),
        key_file: some(),
        ..config("http://prometheus")
    });
    assert!(matches!(without_tls, ConfigError::CertificateWithoutTls));
    let missing = refused(PrometheusConfig {
        certificate_file: some(),
        key_file: some(),
        ..plain()
    });
    assert!(matches!(
        missing,
        ConfigError::File {
            flag: "--prometheus-key-file",
            ..
        }
    ));
    let (certificate, key) = (file("no.crt", "no"), file("no.key", "no"));
    let unusable = refused(PrometheusConfig {
        certificate_file: Some(certificate),
        key_file: Some(key),
        ..plain()
    });
    assert!(
        matches!(unusable, ConfigError::ClientCertificate(_)),
        "{unusable}"
    );
}

/// A certificate authority and the certificates that it issued.
struct Authority {
    certificate: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        Self { certificate }
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.certificate).unwrap(), key)
    }
}

/// Requests a certificate of each client, and records it.
struct TlsListener {
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                let certificates = stream.get_ref().1.peer_certificates().unwrap();
                self.seen.lock().unwrap().push(certificates[0].to_vec());
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_followed_as_it_is_renewed() {
    try_connect(PrometheusConfig::default()).unwrap();
    let authority = Authority::new();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots));
    let (certificate, key) = authority.issue("127.0.0.1");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let tls = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(vec![]));
    let listener = TlsListener {
        listener,
        acceptor: Arc::new(tls).into(),
        seen: seen.clone(),
    };
    let _fake = Fake::behind(listener, url.clone(), |received| evaluate(received, &[]));

    let ca_file = file("ca.crt", &authority.certificate.pem());
    let (first, first_key) = authority.issue("operator");
    let certificate_file = file("tls.crt", &first.pem());
    let key_file = file("tls.key", &first_key.serialize_pem());
    let with = PrometheusConfig {
        ca_file: Some(ca_file.clone()),
        certificate_file: Some(certificate_file.clone()),
        key_file: Some(key_file.clone()),
        ..config(&url)
    };
    let client = connect(with.clone());
    let answered = async |seconds| {
        let windows = client.windows(&ask(seconds)).await;
        assert_eq!(uncounted(&windows).0, Uncounted::NoSeries);
        seen.lock().unwrap().last().cloned().unwrap()
    };
    assert_eq!(answered(15).await, first.der().to_vec());

    // A new certificate with the old key is half of a renewal: the old pair stays in use.
    let (second, second_key) = authority.issue("operator");
    std::fs::write(&certificate_file, second.pem()).unwrap();
    assert_eq!(answered(30).await, first.der().to_vec());
    std::fs::write(&key_file, second_key.serialize_pem()).unwrap();
    assert_eq!(answered(45).await, second.der().to_vec());
    std::fs::remove_file(&key_file).unwrap();
    assert_eq!(answered(60).await, second.der().to_vec());

    let without = PrometheusConfig {
        certificate_file: None,
        key_file: None,
        ..with.clone()
    };
    let windows = connect(without).windows(&ask(15)).await;
    assert_eq!(unanswered(&windows).0, Unanswered::PrometheusUnreachable);
    std::fs::write(&key_file, first_key.serialize_pem()).unwrap();
    let unusable = try_connect(with).err().unwrap();
    assert!(
        matches!(unusable, ConfigError::ClientCertificate(_)),
        "{unusable}"
    );
    for path in [ca_file, certificate_file, key_file] {
        std::fs::remove_file(path).unwrap();
    }
}
