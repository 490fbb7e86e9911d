"""The Keras backend. The table below is the support matrix.

Steps are Keras layers with the module's weights: stock ones where Keras has them, those of `sbertconv.layers`
where not, and a traced graph for the Transformer. Keras is imported when a converter runs.
"""

from __future__ import annotations

from sbertconv.plan.registry import Registry


def register(registry: Registry) -> None:
    """Add the converters for every module type of sentence-transformers."""
    from sentence_transformers.cross_encoder import modules as ce
    from sentence_transformers.multi_vector_encoder import modules as mv
    from sentence_transformers.sentence_transformer import modules as st
    from sentence_transformers.sparse_encoder import modules as sparse

    from sbertconv.converters.keras.bow import convert_bow
    from sbertconv.converters.keras.cnn import convert_cnn
    from sbertconv.converters.keras.dense import convert_dense
    from sbertconv.converters.keras.dropout import convert_dropout
    from sbertconv.converters.keras.layer_norm import convert_layer_norm
    from sbertconv.converters.keras.logit_score import convert_logit_score
    from sbertconv.converters.keras.lstm import convert_lstm
    from sbertconv.converters.keras.multi_vector_mask import convert_multi_vector_mask
    from sbertconv.converters.keras.normalize import convert_normalize
    from sbertconv.converters.keras.pooling import convert_pooling
    from sbertconv.converters.keras.router import convert_router
    from sbertconv.converters.keras.sparse_auto_encoder import convert_sparse_auto_encoder
    from sbertconv.converters.keras.sparse_static_embedding import convert_sparse_static_embedding
    from sbertconv.converters.keras.splade_pooling import convert_splade_pooling
    from sbertconv.converters.keras.static_embedding import convert_static_embedding
    from sbertconv.converters.keras.token_pooling import convert_token_pooling
    from sbertconv.converters.keras.traced import convert_unknown
    from sbertconv.converters.keras.transformer import convert_transformer
    from sbertconv.converters.keras.weighted_layer_pooling import convert_weighted_layer_pooling
    from sbertconv.converters.keras.word_embeddings import convert_word_embeddings
    from sbertconv.converters.keras.word_weights import convert_word_weights

    table = {
        st.BoW: convert_bow,
        st.CLIPModel: convert_transformer,
        st.CNN: convert_cnn,
        st.Dense: convert_dense,
        st.Dropout: convert_dropout,
        mv.HierarchicalTokenPooling: convert_token_pooling,
        st.LayerNorm: convert_layer_norm,
        ce.LogitScore: convert_logit_score,
        st.LSTM: convert_lstm,
        mv.MultiVectorMask: convert_multi_vector_mask,
        st.Normalize: convert_normalize,
        st.Pooling: convert_pooling,
        st.Router: convert_router,
        st.StaticEmbedding: convert_static_embedding,
        st.Transformer: convert_transformer,
        st.WeightedLayerPooling: convert_weighted_layer_pooling,
        st.WordEmbeddings: convert_word_embeddings,
        st.WordWeights: convert_word_weights,
        sparse.MLMTransformer: convert_transformer,
        sparse.SparseAutoEncoder: convert_sparse_auto_encoder,
        sparse.SparseStaticEmbedding: convert_sparse_static_embedding,
        sparse.SpladePooling: convert_splade_pooling,
    }
    for module_type, converter in table.items():
        registry.add("keras", module_type, converter)
    registry.add_fallback("keras", convert_unknown)
