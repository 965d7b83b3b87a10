//! State in burn's records.
