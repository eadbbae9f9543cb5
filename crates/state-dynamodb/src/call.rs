//! Sending requests: how many at once, how long, and what their answers mean.

use std::future::Future;

use acteon_state_core::{Error, Result};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_smithy_runtime_api::http::Response;
use tokio::sync::Semaphore;

use crate::error::{Access, classify, closed};
use crate::item::Item;

/// Why a request did not do what it was for.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Its condition did not hold. The item at that moment, if there was one.
    Condition(Option<Item>),
    /// Something failed.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An error of the service that may be a condition that did not hold.
pub(crate) trait Conditional: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static {
    /// The item that did not meet the condition; `None` if this is another error.
    fn unmet(&self) -> Option<Option<&Item>>;
}

macro_rules! conditional {
    ($($error:ident),*) => {$(
        impl Conditional for $error {
            fn unmet(&self) -> Option<Option<&Item>> {
                match self {
                    Self::ConditionalCheckFailedException(failed) => Some(failed.item()),
                    _ => None,
                }
            }
        }
    )*};
}

conditional!(PutItemError, UpdateItemError, DeleteItemError);

/// How many requests may be under way.
#[derive(Debug)]
pub(crate) struct Gate {
    permits: Semaphore,
}

impl Gate {
    pub(crate) fn new(in_flight_max: usize) -> Self {
        Self { permits: Semaphore::new(in_flight_max) }
    }

    /// No more requests; those that wait are told.
    pub(crate) fn close(&self) {
        self.permits.close();
    }

    /// Sends a request that has no condition.
    pub(crate) async fn call<O, E>(
        &self,
        access: Access,
        request: impl Future<Output = Result<O, SdkError<E, Response>>>,
    ) -> Result<O>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let _permit = self.permits.acquire().await.map_err(|_| closed())?;
        request.await.map_err(|error| classify(error, access))
    }

    /// Sends a write under a condition.
    pub(crate) async fn write<O, E: Conditional>(
        &self,
        request: impl Future<Output = Result<O, SdkError<E, Response>>>,
    ) -> Result<O, Refused> {
        let _permit = self.permits.acquire().await.map_err(|_| closed())?;
        request.await.map_err(|error| {
            let unmet = error.as_service_error().and_then(Conditional::unmet);
            match unmet {
                Some(item) => Refused::Condition(item.cloned()),
                None => Refused::Failed(classify(error, Access::Write)),
            }
        })
    }
}
