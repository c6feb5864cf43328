mod asks;
mod claims;
mod exact;
mod policies;
