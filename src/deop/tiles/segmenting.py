"""stub"""
from deop.labelling.result import _raw_limits
from deop.labelling.masks import SemanticRule
from deop.labelling.assembly import limits_of
def rule_of(m,v):
    lim=_raw_limits(v,m.settings,(m.settings.threshold,)*len(v.names))
    return SemanticRule(limits_of(lim,len(v.names)),m.settings.claim,-1)
def coarse_side(): ...
