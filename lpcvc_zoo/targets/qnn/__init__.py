"""Qualcomm's own NPU compiler and emulator on this machine: no account, no cloud, no device.

This file imports nothing heavy: the child process that runs the compiler passes through it.
"""
