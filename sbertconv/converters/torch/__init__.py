"""The PyTorch backend. The table below is the support matrix.

Steps are torch modules. A module whose own forward traces well is its own step (`convert_traced`); the others say
the same arithmetic in operations whose shapes stay open. A step keeps its weights under the names that they have in
the module, so that those of a chain are sentence-transformers' own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.registry import Registry

if TYPE_CHECKING:
    from sbertconv.plan.context import Converter


def converters() -> dict[type, Converter]:
    """The converter for every module type of sentence-transformers."""
    from sentence_transformers.cross_encoder import modules as ce
    from sentence_transformers.multi_vector_encoder import modules as mv
    from sentence_transformers.sentence_transformer import modules as st
    from sentence_transformers.sparse_encoder import modules as sparse

    from sbertconv.converters.torch.bow import convert_bow
    from sbertconv.converters.torch.cnn import convert_cnn
    from sbertconv.converters.torch.logit_score import convert_logit_score
    from sbertconv.converters.torch.lstm import convert_lstm
    from sbertconv.converters.torch.multi_vector_mask import convert_multi_vector_mask
    from sbertconv.converters.torch.pooling import convert_pooling
    from sbertconv.converters.torch.router import convert_router
    from sbertconv.converters.torch.sparse_auto_encoder import convert_sparse_auto_encoder
    from sbertconv.converters.torch.sparse_static_embedding import convert_sparse_static_embedding
    from sbertconv.converters.torch.splade_pooling import convert_splade_pooling
    from sbertconv.converters.torch.static_embedding import convert_static_embedding
    from sbertconv.converters.torch.token_pooling import convert_token_pooling
    from sbertconv.converters.torch.transformer import convert_transformer
    from sbertconv.converters.torch.word_embeddings import convert_word_embeddings
    from sbertconv.converters.traced import convert_traced

    return {
        st.BoW: convert_bow,
        st.CLIPModel: convert_transformer,
        st.CNN: convert_cnn,
        st.Dense: convert_traced,
        st.Dropout: convert_traced,
        mv.HierarchicalTokenPooling: convert_token_pooling,
        st.LayerNorm: convert_traced,
        ce.LogitScore: convert_logit_score,
        st.LSTM: convert_lstm,
        mv.MultiVectorMask: convert_multi_vector_mask,
        st.Normalize: convert_traced,
        st.Pooling: convert_pooling,
        st.Router: convert_router,
        st.StaticEmbedding: convert_static_embedding,
        st.Transformer: convert_transformer,
        st.WeightedLayerPooling: convert_traced,
        st.WordEmbeddings: convert_word_embeddings,
        st.WordWeights: convert_traced,
        sparse.MLMTransformer: convert_transformer,
        sparse.SparseAutoEncoder: convert_sparse_auto_encoder,
        sparse.SparseStaticEmbedding: convert_sparse_static_embedding,
        sparse.SpladePooling: convert_splade_pooling,
    }


def register(registry: Registry) -> None:
    """Add the converters, and tracing for what has none."""
    from sbertconv.converters.traced import convert_unknown

    for module_type, converter in converters().items():
        registry.add("torch", module_type, converter)
    registry.add_fallback("torch", convert_unknown)
