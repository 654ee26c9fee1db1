# MixNet-M as a feature pyramid: outputs of stride 4-32 (C2-C5), or 8-32 (C3-C5)
custom_imports = dict(imports=['mixdet'], allow_failed_imports=False)
mixnet_c2c5 = dict(type='mixdet.MixNet', arch='m', out_indices=(0, 1, 2, 3))
mixnet_c3c5 = dict(type='mixdet.MixNet', arch='m', out_indices=(1, 2, 3))
channels_c2c5 = [32, 40, 120, 200]
channels_c3c5 = [40, 120, 200]
