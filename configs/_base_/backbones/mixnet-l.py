# MixNet-L as a feature pyramid: outputs of stride 4-32 (C2-C5), or 8-32 (C3-C5)
custom_imports = dict(imports=['mixdet'], allow_failed_imports=False)
mixnet_c2c5 = dict(type='mixdet.MixNet', arch='l', out_indices=(0, 1, 2, 3))
mixnet_c3c5 = dict(type='mixdet.MixNet', arch='l', out_indices=(1, 2, 3))
channels_c2c5 = [40, 56, 160, 264]
channels_c3c5 = [56, 160, 264]
