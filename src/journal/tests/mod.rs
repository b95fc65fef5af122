mod damage;
mod disk;
mod open;
mod record;
mod write;
