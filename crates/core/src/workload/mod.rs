//! Pods of revisions: number, removal, failures and edits by others; the smoke check; an adopted Deployment.

pub mod adoption;
pub mod cleanup;
pub mod failure;
pub mod pods;
pub mod scaling;
pub mod smoke;
pub mod smoke_job;
pub mod tampering;
