//! The SDK's client: credentials, region, server, TLS.

use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource, TimeSource};
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector, proxy::ProxyConfig};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use store::{Kind, Result, StoreError};

use crate::address::Address;
use crate::line::Line;
use crate::pace::Pace;
use crate::settings::{Checksums, Settings, Style, TimeShift};

/// Largest file of certificates or keys that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A client, and what errors say of it.
pub(crate) struct Made {
    pub(crate) client: Client,
    /// The same without checksums of its own.
    pub(crate) bare_client: Client,
    /// The server's URL, as people would name it.
    pub(crate) server: String,
    pub(crate) time: SharedTimeSource,
}

/// The system's time, or one that is wrong on purpose.
#[derive(Debug)]
struct Shifted(TimeShift);

impl TimeSource for Shifted {
    fn now(&self) -> SystemTime {
        let now = SystemTimeSource::new().now();
        let by = Duration::from_secs(self.0.0.unsigned_abs());
        if self.0.0 < 0 { now - by } else { now + by }
    }
}

pub(crate) async fn make(address: &Address) -> Result<Made> {
    let settings = &address.settings;
    let time = SharedTimeSource::new(Shifted(settings.time_shift));
    let base = base(address, &time).await?;
    let endpoint = settings
        .endpoint
        .clone()
        .or_else(|| base.endpoint_url().map(str::to_owned));
    let region = base.region().map(|r| r.as_ref().to_owned());
    let Some(region) = region.or_else(|| endpoint.as_ref().map(|_| "us-east-1".to_owned())) else {
        let why = "no region: name it by region=… in the URL, AWS_REGION, or the profile";
        return Err(StoreError::new(Kind::Invalid, "open", address.url(), why));
    };
    let path_style = match settings.style {
        Some(style) => style == Style::Path,
        // few servers of one's own have a name for each bucket
        None => endpoint.is_some(),
    };
    let server = endpoint.clone().unwrap_or_else(|| format!("S3 in {region}"));
    let mut config = aws_sdk_s3::config::Builder::from(&base)
        .region(Region::new(region))
        .force_path_style(path_style)
        .http_client(line(settings, address)?)
        .time_source(time.clone())
        // ours: a retry of the SDK's can't see that a body broke off (patience.rs)
        .retry_config(RetryConfig::disabled())
        // ours, both ways and below signing (line.rs)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(settings.connect_timeout_s))
                .build(),
        )
        // a wrong clock would make retention and holds lie: people shall hear of it
        .disable_clock_skew_correction(true)
        // with `WhenRequired` the SDK names an algorithm that a request asks for, and sends no sum
        .request_checksum_calculation(match settings.checksums {
            Checksums::Auto => RequestChecksumCalculation::WhenSupported,
            Checksums::Off => RequestChecksumCalculation::WhenRequired,
        })
        // each GET says whether it wants the sum: that of the whole object says nothing of a range
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &endpoint {
        config = config.endpoint_url(endpoint);
    }
    let bare = config
        .clone()
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
    Ok(Made {
        client: Client::from_conf(config.build()),
        bare_client: Client::from_conf(bare.build()),
        server,
        time,
    })
}

/// What the SDK finds: the chain of credentials, the region, an endpoint from the environment or a profile.
async fn base(address: &Address, time: &SharedTimeSource) -> Result<SdkConfig> {
    let settings = &address.settings;
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).time_source(time.clone());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    } else if settings.endpoint.is_some() {
        // not the whole chain: its last link asks a cloud's metadata service, which isn't where such a server stands
        let mut profile = ProfileFileRegionProvider::builder();
        if let Some(name) = &settings.profile {
            profile = profile.profile_name(name);
        }
        loader = loader
            .region(RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile.build()));
    }
    if let Some(file) = &settings.credentials_file {
        read(file, "credentials_file", address)?;
        let files = EnvConfigFiles::builder()
            .with_file(EnvConfigFileKind::Credentials, file)
            .build();
        let mut provider = aws_config::profile::ProfileFileCredentialsProvider::builder().profile_files(files);
        if let Some(name) = &settings.profile {
            provider = provider.profile_name(name);
        }
        loader = loader.credentials_provider(provider.build());
    } else if let Some(name) = &settings.profile {
        loader = loader.profile_name(name);
    }
    Ok(loader.load().await)
}

fn read(file: &Path, what: &str, address: &Address) -> Result<Vec<u8>> {
    let said = |kind, why: String| StoreError::new(kind, "open", address.url(), why);
    let shown = file.display();
    let size_bytes = std::fs::metadata(file).map(|m| m.len());
    match size_bytes.and_then(|size_bytes| Ok((size_bytes, std::fs::read(file)?))) {
        Ok((size_bytes, _)) if size_bytes > FILE_BYTES_MAX => Err(said(
            Kind::Invalid,
            format!("{what} {shown} has {size_bytes} bytes; at most {FILE_BYTES_MAX}"),
        )),
        Ok((_, bytes)) => Ok(bytes),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(said(Kind::Denied, format!("{what} {shown} can't be read: {e}")))
        }
        Err(e) => Err(said(Kind::Invalid, format!("{what} {shown} can't be read: {e}"))),
    }
}

/// The HTTP client: rustls on aws-lc, proxies as the environment names them, certificates of the system and of `ca_file`.
fn line(settings: &Settings, address: &Address) -> Result<Line> {
    let mut trust = TrustStore::default();
    if let Some(file) = &settings.ca_file {
        let pem = read(file, "ca_file", address)?;
        check_certificates(&pem).map_err(|why| {
            let why = format!("ca_file {}: {why}", file.display());
            StoreError::new(Kind::Invalid, "open", address.url(), why)
        })?;
        trust = trust.with_pem_certificate(pem);
    }
    let context = TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|e| StoreError::new(Kind::Invalid, "open", address.url(), format!("TLS: {e}")))?;
    let inner = Builder::new().build_with_connector_fn(move |connect, components| {
        let mut builder = Connector::builder().proxy_config(ProxyConfig::from_env());
        if let Some(connect) = connect {
            builder = builder.connector_settings(connect.clone());
        }
        builder.set_sleep_impl(components.and_then(|c| c.sleep_impl()));
        builder
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone())
            .build()
    });
    Ok(Line::new(
        inner,
        Pace::new(settings.upload_bytes_per_s_max),
        Pace::new(settings.download_bytes_per_s_max),
        settings.stall_timeout(),
    ))
}

/// The SDK panics on certificates that it can't take, and only when the first connection is made.
fn check_certificates(pem: &[u8]) -> std::result::Result<(), String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| format!("not PEM: {e}"))?;
        roots
            .add(certificate)
            .map_err(|e| format!("not a certificate to trust: {e}"))?;
    }
    if roots.is_empty() {
        return Err("holds no certificate in PEM".to_owned());
    }
    Ok(())
}
