//! The commands, each with its arguments.

pub mod check;
pub mod completion;
pub mod convert;
pub mod dashboard;
pub mod explain;
pub mod freeze;
pub mod get;
pub mod history;
pub mod intervene;
pub mod lint;
pub mod migrate;
pub mod report;
pub mod restart;
pub mod sign_off;
pub mod simulate;
pub mod status;
pub mod undo;
pub mod version;
pub mod watch;
