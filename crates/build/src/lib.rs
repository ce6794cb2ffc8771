//! Builds, decided: what the stages of a Dockerfile do ([`operation`]), what a step is known by in the build cache
//! ([`key`]), which files of a context or of a stage a COPY takes and what they become ([`copy`]), the image's
//! configuration in the end ([`plan`]), and what is said of it: where it comes from ([`provenance`]), and which packages
//! are in it ([`packages`], [`spdx`]). How a cache of it is written that travels ([`carried`]). And which repository of git a
//! word names ([`repository`]).
//!
//! Nothing here runs a command or writes a layer; the engine does (`engine/build`), and nothing here knows HTTP.

pub mod carried;
pub mod context;
pub mod copy;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod key;
pub mod operation;
pub mod packages;
pub mod plan;
pub mod provenance;
pub mod repository;
pub mod spdx;
pub mod statement;
pub mod tree;
