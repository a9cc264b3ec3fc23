//! Where the traffic should go, and in which order: shares, Services, routes, and what routers and endpoints still lack.

pub mod actions;
pub mod corrections;
pub mod route;
pub mod routes;
pub mod services;
pub mod settle;
pub mod share;
pub mod testers;
pub mod view;
