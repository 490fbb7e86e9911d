"""The ONNX backend. The table below is the support matrix.

Steps are torch modules: the chain of steps is traced once with torch.export and translated to ONNX.
A module whose own forward traces well is its own step (`convert_traced`); the others say the same
arithmetic in operations that ONNX has.
"""

from __future__ import annotations

from sbertconv.registry import Registry


def register(registry: Registry) -> None:
    """Add the converters for every module type of sentence-transformers."""
    from sentence_transformers.sentence_transformer import modules as st

    from sbertconv.converters.onnx.bow import convert_bow
    from sbertconv.converters.onnx.cnn import convert_cnn
    from sbertconv.converters.onnx.lstm import convert_lstm
    from sbertconv.converters.onnx.pooling import convert_pooling
    from sbertconv.converters.onnx.router import convert_router
    from sbertconv.converters.onnx.static_embedding import convert_static_embedding
    from sbertconv.converters.onnx.transformer import convert_transformer
    from sbertconv.converters.onnx.word_embeddings import convert_word_embeddings
    from sbertconv.converters.traced import convert_traced, convert_unknown

    table = {
        st.BoW: convert_bow,
        st.CLIPModel: convert_transformer,
        st.CNN: convert_cnn,
        st.Dense: convert_traced,
        st.Dropout: convert_traced,
        st.LayerNorm: convert_traced,
        st.LSTM: convert_lstm,
        st.Normalize: convert_traced,
        st.Pooling: convert_pooling,
        st.Router: convert_router,
        st.StaticEmbedding: convert_static_embedding,
        st.Transformer: convert_transformer,
        st.WeightedLayerPooling: convert_traced,
        st.WordEmbeddings: convert_word_embeddings,
        st.WordWeights: convert_traced,
    }
    for module_type, converter in table.items():
        registry.add("onnx", module_type, converter)
    registry.add_fallback("onnx", convert_unknown)
