"""The commands: one small file each. Heavy imports happen inside them, so that help is instant."""
