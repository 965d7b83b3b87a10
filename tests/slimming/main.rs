//! Slimming: the slim model computes what the masked one does, whatever the model.

mod interpreter;
mod nodes;
mod random;
mod traps;
