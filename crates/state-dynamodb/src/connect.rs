//! Makes the AWS client: endpoint, credentials, timeouts, and what is learnt from every answer.
//!
//! # What it promises
//! One request is sent once. The client's own retries are off: they would repeat a write whose answer was lost without anybody
//! knowing, while the layers of the store repeat by what may have happened.
//!
//! # Failure
//! A region that is missing is told here. Credentials are looked for with the first request and renewed when they end; those
//! that are missing fail that request as `Denied`.
//!
//! # How it works
//! Everything is as the AWS configuration of the machine says, except what [`DynamoConfig`] says otherwise. At an endpoint on
//! this machine neither region nor keys are needed, and the metadata service of a cloud machine, which takes seconds where
//! there is none, is not asked.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Error, Result};
use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{ConfigBag, Credentials, Intercept, RuntimeComponents, SharedHttpClient};
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use aws_smithy_types::date_time::Format;
use parking_lot::Mutex;

use crate::capacity::Capacity;
use crate::clock::CalibratedClock;
use crate::config::DynamoConfig;
use crate::error::BACKEND;

/// How long an unused connection is kept. Routers on the way forget silent connections, some after a minute, and a write on
/// a forgotten one ends in a lost answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Where an endpoint on this machine is, when nothing says so: an emulator keeps separate tables for each region.
const LOOPBACK_REGION: &str = "us-east-1";
/// Both keys for an endpoint on this machine, when there are none. Emulators keep separate tables for each, too.
const LOOPBACK_KEY: &str = "acteon";
/// How a session of an assumed role is called in AWS's records.
const SESSION_NAME: &str = "acteon";

/// Makes a client. Sends nothing to DynamoDB.
///
/// # Errors
/// `Config` when no region is given anywhere.
pub(crate) async fn client(
    config: &DynamoConfig,
    clock: Arc<CalibratedClock>,
    capacity: Arc<Capacity>,
) -> Result<Client> {
    let sdk = load(config).await;
    let Some(region) = sdk.region().cloned() else {
        let message = "region: it is neither configured nor in the AWS configuration: set region, or AWS_REGION";
        return Err(Error::config(message).on_backend(BACKEND));
    };
    let mut builder = aws_sdk_dynamodb::config::Builder::from(&sdk)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(config))
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .interceptor(Observer { clock, capacity, dates: Dates::default() });
    // Here and not in what is loaded: the endpoint of the role's service is another one.
    if let Some(url) = &config.url {
        builder = builder.endpoint_url(url);
    }
    if let Some(role) = &config.role_arn {
        let provider = AssumeRoleProvider::builder(role).session_name(SESSION_NAME).region(region).configure(&sdk);
        builder = builder.credentials_provider(provider.build().await);
    }
    Ok(Client::from_conf(builder.build()))
}

/// What the machine says, and what our options say otherwise.
async fn load(config: &DynamoConfig) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
    if config.is_loopback() {
        loader = for_loopback(loader, config);
    }
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    // Unset means what the machine says, not off.
    if config.fips {
        loader = loader.use_fips(true);
    }
    if config.dual_stack {
        loader = loader.use_dual_stack(true);
    }
    loader.load().await
}

fn for_loopback(loader: ConfigLoader, config: &DynamoConfig) -> ConfigLoader {
    let machine = ProviderConfig::without_region().with_http_client(http_client());
    let mut region = ProfileFileRegionProvider::builder().configure(&machine);
    let mut keys = ProfileFileCredentialsProvider::builder().configure(&machine);
    if let Some(profile) = &config.profile {
        region = region.profile_name(profile);
        keys = keys.profile_name(profile);
    }
    let regions = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(region.build())
        .or_else(Region::from_static(LOOPBACK_REGION));
    let loader = loader.region(regions);
    // A profile that was asked for by name is not replaced by other keys.
    if config.profile.is_some() {
        return loader.credentials_provider(keys.build());
    }
    let nobody = Credentials::new(LOOPBACK_KEY, LOOPBACK_KEY, None, None, "endpoint on this machine");
    let chain = CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
        .or_else("Profile", keys.build())
        .or_else("Loopback", nobody);
    loader.credentials_provider(chain)
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https()
}

/// An attempt is bounded where it waits for the answer, so that renewing credentials, which takes longer now and then, does not
/// count. Everything together, reading the answer as well, is bounded by the time of the operation.
fn timeouts(config: &DynamoConfig) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.attempt_timeout)
        .operation_timeout(config.operation_timeout)
        .build()
}

/// Counts requests and hands the time in answers to the clock.
#[derive(Debug)]
struct Observer {
    clock: Arc<CalibratedClock>,
    capacity: Arc<Capacity>,
    dates: Dates,
}

/// Reads `Date` headers. Those of one second are the same text, and under load there are thousands of them.
#[derive(Debug, Default)]
struct Dates {
    // The newest text and its time; locked to compare and to replace.
    newest: Mutex<(String, Option<i64>)>,
}

impl Dates {
    fn seconds_of(&self, date: &str) -> Option<i64> {
        let mut newest = self.newest.lock();
        if newest.0 != date {
            *newest = (date.to_owned(), seconds_of(date));
        }
        newest.1
    }
}

/// When a request left, by the local clock in µs. The connection may be opened after it, which makes what an answer says about
/// the clock less precise and not wrong.
#[derive(Clone, Copy, Debug)]
struct Sent(u64);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Observer {
    fn name(&self) -> &'static str {
        "acteon"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.capacity.add_sent();
        bag.interceptor_state().store_put(Sent(self.clock.local_us()));
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let arrived_us = self.clock.local_us();
        let date_s = context.response().headers().get("date").and_then(|date| self.dates.seconds_of(date));
        if let (Some(Sent(sent_us)), Some(date_s)) = (bag.load::<Sent>().copied(), date_s) {
            self.clock.observe(sent_us, arrived_us, date_s);
        }
        Ok(())
    }
}

/// The time in a `Date` header, such as `Tue, 15 Nov 1994 08:12:31 GMT`.
fn seconds_of(date: &str) -> Option<i64> {
    DateTime::from_str(date, Format::HttpDate).ok().map(|date| date.secs())
}

#[cfg(test)]
mod tests {
    use super::{Dates, seconds_of};

    #[test]
    fn the_date_of_an_answer_is_read() {
        assert_eq!(seconds_of("Tue, 15 Nov 1994 08:12:31 GMT"), Some(784_887_151));
        for date in ["", "yesterday", "1994-11-15T08:12:31Z", "Tue, 15 Nov 1994 25:12:31 GMT"] {
            assert_eq!(seconds_of(date), None, "{date}");
        }
    }

    #[test]
    fn each_date_has_its_own_time_also_after_others() {
        let dates = Dates::default();
        for _ in 0..2 {
            assert_eq!(dates.seconds_of("Tue, 15 Nov 1994 08:12:31 GMT"), Some(784_887_151));
            assert_eq!(dates.seconds_of("Tue, 15 Nov 1994 08:12:31 GMT"), Some(784_887_151));
            assert_eq!(dates.seconds_of("yesterday"), None);
            assert_eq!(dates.seconds_of("Tue, 15 Nov 1994 08:12:32 GMT"), Some(784_887_152));
        }
    }
}
