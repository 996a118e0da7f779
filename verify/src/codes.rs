//! What each code of a quant group stands for, and how far a schedule's way of computing it may be
//! off.
