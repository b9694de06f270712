"""A layer of flexible heads: two global ones, four with a window, two that learn their span."""

import jax
import jax.numpy as jnp

from jaxcxr.models.attention import FlexibleHeadAttention, parse_groups

groups, cost = parse_groups("2*global + 4*fixed(16)/entmax15 + 2*adaptive(2,loss=0.01)/static")
layer = FlexibleHeadAttention(groups, cost=cost)  # a Linen module

tokens = jnp.ones((1, 81, 64))  # [batch, tokens, width]
variables = layer.init(jax.random.key(0), tokens)
outputs = layer.apply(variables, tokens)
